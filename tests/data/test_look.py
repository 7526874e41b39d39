import numpy as np
import pytest
from PIL import Image

from daad_jax.data import load_dataset
from daad_jax.data.dataset import Dataset, ImageSet
from daad_jax.data.look import warn_of_pixels
from tests.data.test_folder import config_for, make_category


def images(count, low, high, seed=0, names="train/good"):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(low, high + 1, (count, 8, 8, 1)).astype(np.uint8)
    return ImageSet(pixels, [f"{names}/{at}.png" for at in range(count)], ["good"] * count)


def warnings(capsys, train, test=None):
    held_out = images(2, 90, 200, 1, "held")
    warn_of_pixels(Dataset("nut", train, test or images(4, 80, 210, 2, "test"), held_out))
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("warning: nut: ") for line in lines)
    return lines


def test_sound_images_are_no_reason_to_warn(capsys):
    assert not warnings(capsys, images(20, 80, 200))
    assert not warnings(capsys, images(20, 0, 70))  # dark, but not nearly black
    two = images(20, 0, 1)
    two.images[:] *= 255  # drawings in black and white
    assert not warnings(capsys, two)
    varied = images(40, 80, 90)
    varied.images[::2] += 40
    varied.images[0] += 80  # twice as far from the median as many others
    assert not warnings(capsys, varied)
    dark = images(20, 80, 200)
    dark.images[:10] //= 2  # two kinds of light
    assert not warnings(capsys, dark)


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0, 15, "the training images are nearly black, with values up to 15 of 255, train/good/0"),
        (10, 63, "the training images are nearly black, with values up to 63 of 255, train/good/"),
        (128, 143, "the training images have only 16 grey value(s), from 128 to 143, train/good/"),
    ],
)
def test_a_narrow_range_is_told_of_whatever_single_pixels_hold(capsys, low, high, sentence):
    train = images(40, low, high)
    train.images.reshape(-1)[0] = 255
    lines = [line for line in warnings(capsys, train) if "training" in line]
    assert len(lines) == 1
    assert sentence in lines[0]
    assert "set data.value_range to the values of black and white" in lines[0]


def test_test_images_are_looked_at_too(capsys):
    lines = warnings(capsys, images(20, 80, 200), images(4, 0, 15, names="test/good"))
    assert "the test images are nearly black" in lines[0]


def test_images_with_one_value_are_counted(capsys):
    train = images(20, 80, 200)
    train.images[[3, 7]] = 90
    (line,) = warnings(capsys, train)
    assert "2 image(s) have one value in all pixels, train/good/3.png for example" in line


def test_one_image_far_from_the_others_is_named(capsys):
    train = images(40, 100, 200)
    train.images[5] //= 16
    (line,) = warnings(capsys, train)
    assert "1 normal image(s) are much darker or brighter than the others, train/good/5.p" in line


def test_twelve_bits_in_a_folder_are_told_of_and_mended(tmp_path, capsys):
    nut = make_category(tmp_path)
    rng = np.random.default_rng(0)
    for file in nut.glob("t*/*/*.png"):
        pixels = rng.integers(0, 256, (16, 16)).astype(np.uint16)
        Image.fromarray(pixels * 16).save(file)
    load_dataset(config_for(tmp_path), "nut")
    err = capsys.readouterr().err
    assert "nut: the training images are nearly black, with values up to 15 of 255" in err
    dataset = load_dataset(config_for(tmp_path, value_range=(0, 4080)), "nut")
    assert capsys.readouterr().err == ""
    assert dataset.train.images.max() > 250
    cache = tmp_path / "cache"
    mapped = {"memory_limit_mb": 0}
    before = load_dataset(config_for(tmp_path, **mapped), "nut", cache).train.images
    after = load_dataset(
        config_for(tmp_path, value_range=(0, 4080), **mapped), "nut", cache
    ).train.images
    assert before.max() < 16 < after.max()
