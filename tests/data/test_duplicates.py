import pytest
from PIL import Image

from daad_jax.data import load_dataset
from tests.data.test_bad_files import nut
from tests.data.test_folder import config_for, write

__all__ = ["nut"]


def load(nut, **fields):
    return load_dataset(config_for(nut.parent, **fields), "nut", nut.parent / "cache")


def test_different_images_are_no_duplicates(nut, capsys):
    assert load(nut).duplicates == ([], [])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("limit", [0, 4096])
def test_training_images_among_the_test_images_are_reported(nut, capsys, limit):
    image = Image.open(nut / "train/good/004.png")
    image.save(nut / "test/good/001.png", compress_level=0)  # other bytes, the same pixels
    fields = {"memory_limit_mb": limit, "calibration_fraction": 0.1, "split_seed": 4}
    held_out = load(nut, **fields).calibration.names[-1]
    assert held_out != "train/good/004.png"
    capsys.readouterr()
    Image.open(nut / held_out).save(nut / "test/bent/002.png")
    dataset = load(nut, **fields)
    assert dataset.duplicates.in_training == [
        ("test/good/001.png", "train/good/004.png"),
        ("test/bent/002.png", held_out),
    ]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: nut: 2 of the 6 test images are also training images, test/good/001.png and "
        "train/good/004.png for example; remove one of the two"
    )


def test_test_images_that_are_good_and_defective_are_reported(nut, capsys):
    for name in ("test/good/001.png", "test/good/002.png", "test/bent/000.png"):
        write(nut / name, 251)
    write(nut / "test/twisted/000.png", 249)
    write(nut / "test/twisted/001.png", 249)
    write(nut / "test/twisted/002.png", 253)
    for index in range(3):
        write(nut / f"ground_truth/twisted/{index:03d}.png", 255)
    assert load(nut).duplicates == ([], [("test/good/001.png", "test/bent/000.png")])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: nut: 1 test image(s) are both normal and defective, test")
