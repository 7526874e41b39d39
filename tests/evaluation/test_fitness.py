"""What is said of a folder of images, and what is advised."""

import dataclasses

import numpy as np
import pytest

from daad_jax.config.presets import folder
from daad_jax.data.dataset import Dataset, ImageSet
from daad_jax.data.pictures import Header
from daad_jax.data.survey import Survey
from daad_jax.errors import BadFileError
from daad_jax.evaluation.fitness import judge


def images(part, kinds, light, seed):
    rng = np.random.default_rng(seed)
    means = rng.normal(light, 10, (len(kinds), 1, 1, 1))
    pixels = (rng.integers(-20, 21, (len(kinds), 8, 8, 1)) + means).clip(0, 255).astype(np.uint8)
    names = [f"{part}/{at:03d}.png" for at in range(len(kinds))]
    return ImageSet(np.repeat(pixels, 3, axis=-1), names, kinds)


def make(train=60, good=20, bad=20, light=(120, 120, 120), **fields):
    parts = [
        images("train", ["good"] * train, light[0], 1),
        images("test", ["good"] * good, light[1], 2),
        images("bad", ["bent"] * bad, light[2], 3),
    ]
    test = ImageSet(
        np.concatenate([one.images for one in parts[1:]]),
        [*parts[1].names, *parts[2].names],
        [*parts[1].kinds, *parts[2].kinds],
    )
    names = [*parts[0].names, *test.names]
    empty = parts[0].take(slice(0))
    filled = {
        "calibration": 6,
        "headers": dict.fromkeys(names, Header((300, 300), "L", 8)),
        "files": {},
        "broken": [],
        "notes": {},
        "unused": {},
        "has_masks": True,
        "defects": np.full(10, 0.01),
    }
    return Survey(Dataset("nut", parts[0], test, empty), **{**filled, **fields})


def advice(found):
    return {one.field: one.value for one in judge(found, folder()).choices}


def test_sound_pictures_are_fit():
    fitness = judge(make(), folder())
    assert fitness.verdict == "fit"
    assert advice(make()) == {"image_size": 64, "channels": 1, "brightness": "kept"}
    assert all(one.reason for one in fitness.choices)
    assert len(fitness.unusual) == 12


def test_too_few_good_pictures_are_not_fit():
    assert judge(make(train=9), folder()).verdict.startswith("not fit: 9 usable good pictures")
    assert judge(make(train=0), folder()).choices == []
    assert judge(make(train=40), folder()).verdict.startswith("fit, but 40 good pictures are few")


def test_light_that_separates_the_classes_is_divided_out():
    found = make(light=(120, 120, 170))
    fitness = judge(found, folder())
    assert "lighting alone separates good from defective pictures" in fitness.verdict
    assert fitness.by_label["mean"][0] > 0.99
    assert 0.2 < fitness.by_label["mean"][1] < 0.8
    assert advice(found)["brightness"] == "equal"


def test_light_that_separates_good_from_good_pictures_is_told_of():
    found = make(light=(120, 60, 60))
    verdict = judge(found, folder()).verdict
    assert "the good test pictures have other light than the good training pictures" in verdict
    assert "separates good from defective" not in verdict
    assert advice(found)["brightness"] == "equal"


@pytest.mark.parametrize(
    ("width", "side", "size"),
    [(300, 0.06, 64), (300, 0.03, 128), (300, 0.003, 256), (160, 0.003, 128), (40, 0.003, 64)],
)
def test_the_size_shows_the_smallest_defects(width, side, size):
    found = make(defects=np.full(10, side**2))
    headers = dict.fromkeys(found.headers, Header((width, 2 * width), "L", 8))
    assert advice(dataclasses.replace(found, headers=headers))["image_size"] == size


def test_colour_needs_three_channels():
    found = make()
    found.dataset.train.images[3, ..., 0] = 250
    assert advice(found)["channels"] == 3


def test_files_that_cannot_be_used_are_left_out():
    found = make(
        broken=[BadFileError("/a/b/c.png", "is empty; remove it")] * 120, unused={"old": 2}
    )
    fitness = judge(found, folder())
    assert "120 file(s) cannot be used, b/c.png for example, which is empty" in fitness.verdict
    assert "2 picture(s) are not used, in old" in fitness.verdict
    assert advice(found)["on_bad_file"] == "skip"
    assert advice(found)["max_bad_files"] == 120


def test_twelve_bits_in_sixteen_get_their_range():
    found = make(light=(8, 8, 8))
    found.dataset.train.images[:] //= 4
    headers = dict.fromkeys(found.headers, Header((300, 300), "L", 16))
    found = dataclasses.replace(found, headers=headers)
    assert advice(found)["value_range"] == (0, 4095)


def test_copies_blanks_and_strays_are_named():
    found = make()
    train, test = found.dataset.train.images, found.dataset.test.images
    test[5], test[25], train[7], train[8] = train[4], test[6], 7, 250
    train[8, 0, 0] = 0
    verdict = judge(found, folder()).verdict
    assert "1 test picture(s) are training pictures, too, test/005.png and train/004.png" in verdict
    assert "as good and as defective, test/006.png and bad/005.png" in verdict
    assert "1 picture(s) have one value in all pixels, train/007.png" in verdict
    assert "1 good picture(s) are much darker or brighter than the others, train/008.png" in verdict


def test_shapes_and_bits_that_differ_are_told_of():
    found = make()
    headers = dict(found.headers)
    headers["train/000.png"] = Header((600, 300), "L", 16)
    verdict = judge(dataclasses.replace(found, headers=headers), folder()).verdict
    assert "different shapes, from 300 x 300 to 600 x 300 pixels" in verdict
    assert "bit depths are mixed (99 of 8 bits, 1 of 16 bits)" in verdict


def test_defective_pictures_alone_ask_for_good_ones():
    found = make(good=0)
    assert "20 defective test pictures and no good ones" in judge(found, folder()).verdict
    assert advice(found)["test_fraction"] == 0.2
