import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from daad_jax.cli.flags import override
from daad_jax.cli.train import category_name
from daad_jax.config import Config
from daad_jax.data import display_name, list_categories, load_dataset
from daad_jax.errors import DataError
from tests.data.test_folder import config_for, make_category, write

HOSTILE = [
    b"\"quoted\" 'twice'.png",
    b"<script>alert(1)<\xc2\xa7script>.png",
    b"line\nbreak\r\n.png",
    b"a,b;c\t.png",
    b"\xff\xfe latin \xe9.png",
    "gr\u00fcn \U0001f600.png".encode(),
]
SHOWN = [
    "\"quoted\" 'twice'.png",
    "<script>alert(1)<\u00a7script>.png",
    "line\nbreak\r\n.png",
    "a,b;c\t.png",
    "\\xff\\xfe latin \\xe9.png",
    "gr\u00fcn \U0001f600.png",
]


@pytest.fixture
def hostile_folder(image_folder):
    folder = os.fsencode(image_folder / "widget" / "test" / "bad")
    with open(os.path.join(folder, b"0.png"), "rb") as file:
        content = file.read()
    for name in HOSTILE:
        try:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        except OSError:
            pytest.skip("this file system refuses such names")
    os.rename(folder, folder.replace(b"bad", b"b\xe4d,"))
    return image_folder


def test_names_are_shown_unchanged_but_for_bytes_that_are_not_utf8():
    assert [display_name(os.fsdecode(name)) for name in HOSTILE] == SHOWN


def test_images_and_kinds_have_their_names(hostile_folder, make_config):
    test = load_dataset(make_config(root=str(hostile_folder)), "widget").test
    names = {name.removeprefix("test/b\\xe4d,/") for name in test.names[2:]}
    assert names == {*SHOWN, "0.png", "1.png", "2.png"}
    assert set(test.kinds[2:]) == {"b\\xe4d,"}


def test_masks_are_found_for_hostile_names(hostile_folder, make_config):
    root = os.fsencode(hostile_folder / "widget")
    defects = os.path.join(root, b"test", b"b\xe4d,")
    truth = os.path.join(root, b"ground_truth", b"b\xe4d,")
    os.makedirs(truth)
    for name in os.listdir(defects):
        os.link(os.path.join(defects, name), os.path.join(truth, name[:-4] + b"_mask.png"))
    masks = np.stack(load_dataset(make_config(root=str(hostile_folder)), "widget").test.masks)
    assert not masks[:2].any()
    assert masks[2:].any(axis=(1, 2)).all()


@pytest.fixture
def nut(tmp_path):
    return make_category(tmp_path)


def load(nut, category="nut", **fields):
    return load_dataset(config_for(nut.parent, category, **fields), category)


@pytest.mark.parametrize(
    "name", ["001_mask.PNG", "001_MASK.png", "001.PNG", "001_Mask.Tif", "001.BMP"]
)
def test_the_ending_of_a_mask_has_no_case(nut, name):
    mask = nut / "ground_truth/bent/001_mask.png"
    Image.open(mask).save(nut / "ground_truth/bent" / name)
    if name != "001_mask.PNG":
        mask.unlink()
    assert np.sum(load(nut).test.masks) == 12


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_names_are_the_same(nut, form, other):
    name = "gr\u00fcn"
    for part, ending in (("test", ".png"), ("ground_truth", "_mask.png")):
        chosen = unicodedata.normalize(form if part == "test" else other, name)
        folder = nut / part / "bent"
        (folder / f"001{ending}").rename(folder / f"{chosen}{ending}")
        folder.rename(nut / part / chosen)
    nut.rename(nut.parent / unicodedata.normalize(form, name))
    dataset = load(nut, unicodedata.normalize(other, name))
    assert np.sum(dataset.test.masks) == 12
    assert len(dataset.test) == 6


def test_folders_are_found_whatever_the_case(nut):
    for part in ("train", "test"):
        (nut / part / "good").rename(nut / part / "Good")
        (nut / part).rename(nut / part.title())
    (nut / "ground_truth/bent").rename(nut / "ground_truth/BENT")
    (nut / "ground_truth").rename(nut / "Ground_Truth")
    dataset = load(nut)
    assert dataset.test.kinds == ["good"] * 3 + ["bent"] * 3
    assert np.sum(dataset.test.masks) == 12


def test_files_that_systems_make_are_passed_over(nut, capsys):
    for name in ("Thumbs.db", "desktop.ini", "._000.png", ".DS_Store", "Icon\r", "ehthumbs.db"):
        for part in ("train/good", "test/good", "test/bent", "ground_truth/bent", "."):
            (nut / part / name).write_bytes(b"\xd0\xcf\x11\xe0")
    for part in ("__MACOSX/nut/train/good", "nut/test/__MACOSX", "nut/train/good/@eaDir"):
        (nut.parent / part).mkdir(parents=True)
        write(nut.parent / part / "000.png")
    capsys.readouterr()
    assert len(load(nut, on_bad_file="stop").test) == 6
    assert "not used" not in capsys.readouterr().err
    assert list_categories(config_for(nut.parent, "all")) == ["nut"]


def test_links_to_the_same_file_are_used(nut, capsys):
    blob = nut.parent / "blobs/5a"
    write(blob.with_suffix(".png"), 77)
    blob.with_suffix(".png").rename(blob)
    for path in ("train/good/a.png", "train/good/b.png", "test/good/c.png"):
        (nut / path).symlink_to(blob)
    dataset = load(nut)
    assert (len(dataset.train), len(dataset.test)) == (12, 7)
    assert "test images are also training images" in capsys.readouterr().err


def test_images_that_are_not_used_are_counted(nut, capsys):
    for path in (
        *("train/good/monday/000.png", "train/good/monday/001.JPG", "train/bad/000.png"),
        *("test/bent/more/000.png", "test/000.png", "train/000.tif", "validation/good/000.png"),
        *("ground_truth/bent/999_mask.png", "ground_truth/good/000_mask.png"),
    ):
        write(nut / path)
    (nut.parent / "tuesday").mkdir()
    write(nut.parent / "tuesday/000.png")
    (nut / "train/good/link").symlink_to(nut.parent / "tuesday")
    dataset = load(nut)
    assert (len(dataset.train), len(dataset.test)) == (10, 6)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    assert line.startswith(
        "warning: nut: 9 image file(s) are not used, in ground_truth/bent, test, test/bent/more, "
        "train, train/bad and 3 more; images are taken from train/good, test/good and test/DEFECT"
    )


def test_a_folder_of_folders_alone_is_named(nut):
    (nut / "train/good").rename(nut / "monday")
    (nut / "train/good").mkdir()
    (nut / "monday").rename(nut / "train/good/monday")
    with pytest.raises(DataError, match=r"good: empty; .*, not into folders such as 'monday'$"):
        load(nut)


@pytest.mark.parametrize("limit", [0, 4096])
def test_further_frames_are_counted_cached_or_not(nut, capsys, limit, tmp_path):
    for name in ("train/good/003.png", "train/good/004.png", "ground_truth/bent/001_mask.png"):
        first = Image.open(nut / name)
        first.save(nut / name, save_all=True, append_images=[Image.new("L", (16, 16), 9)])
    for _ in range(2):
        capsys.readouterr()
        load_dataset(config_for(nut.parent, memory_limit_mb=limit), "nut", tmp_path / "cache")
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "frames" in line]
        assert "nut: 3 file(s) hold further pages or frames, which are not used; " in line


def test_a_slash_after_a_category_does_not_matter(nut):
    for category in ("nut/", "./nut", "nut//"):
        data = config_for(nut.parent, category)
        assert list_categories(data) == ["nut"]
        assert load_dataset(data, category).category == "nut"
        config = Config(data=data)
        override(config, {"data.category": category})
        assert category_name(config) == "nut"
