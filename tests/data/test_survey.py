"""Every file of a folder is read, whatever is wrong with some of them."""

import numpy as np
import pytest
from PIL import Image

from daad_jax.data.pictures import read_header
from daad_jax.data.survey import show_picture, survey
from tests.data.test_folder import config_for, make_category, write


def look(root, cache, **fields):
    return survey(config_for(root, "", **fields), cache)


def test_broken_files_are_all_told_of(tmp_path):
    root = make_category(tmp_path)
    (root / "train/good/000.png").write_bytes(b"")
    (root / "train/good/notes.txt").write_text("not an image")
    (root / "test/bent/000.png").write_bytes((root / "test/bent/000.png").read_bytes()[:60])
    (root / "ground_truth/bent/001_mask.png").unlink()
    write(root / "train/good/inner/deep.png")
    found = look(root, tmp_path / "cache")
    reasons = {error.place.split("nut/")[1]: error.reason for error in found.broken}
    assert set(reasons) == {
        *("train/good/000.png", "train/good/notes.txt", "test/bent/000.png"),
        "ground_truth/bent/001_mask.png",
    }
    assert reasons["train/good/000.png"].startswith("is empty")
    assert found.unused == {"train/good/inner": 1}
    assert (len(found.dataset.train), len(found.dataset.test)) == (9, 4)
    assert found.files["train/good/001.png"] == root / "train/good/001.png"


def test_defects_have_the_share_of_their_area(tmp_path):
    root = make_category(tmp_path)
    found = look(root, tmp_path / "cache", calibration_fraction=0.2)
    np.testing.assert_allclose(found.defects, 4 / 256)  # four of 16 x 16 pixels
    assert len(found.defects) == 3
    assert found.has_masks
    assert found.calibration == 2
    assert len(found.dataset.train) == 10


def test_pictures_are_shown_in_their_own_shape(tmp_path):
    for index in range(3):
        Image.fromarray(np.full((20, 40), 10 * index, np.uint8)).save(tmp_path / f"{index}.png")
    config = config_for(tmp_path, "")
    found = survey(config, tmp_path / "cache")
    shown = show_picture(found, "2.png", config, 64)
    assert shown.shape == (32, 64, 3)
    assert (shown == 20).all()
    (tmp_path / "2.png").unlink()
    assert show_picture(found, "2.png", config, 64) is None


@pytest.mark.parametrize(
    ("suffix", "mode", "expected"),
    [
        ("png", "1", ("1", 1)),
        ("png", "L", ("L", 8)),
        ("png", "I;16", ("L", 16)),
        ("tif", "I;16", ("L", 16)),
        ("tif", "F", ("L", 32)),
        ("jpg", "RGB", ("RGB", 8)),
    ],
)
def test_a_header_tells_size_mode_and_bits(tmp_path, suffix, mode, expected):
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (5, 3)).save(path)
    header = read_header(path.read_bytes())
    assert header.size == (5, 3)
    assert (header.mode, header.bits) == expected
    assert read_header(b"nothing") is None
