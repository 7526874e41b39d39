import shutil

import numpy as np
import pytest
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import list_categories, load_dataset
from daad_jax.errors import ConfigError, DataError


def write(path, value=100, size=16, flat=None):
    """Writes an image that begins with `value`. One of 0 or 255 is flat by default, as a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size, size), value, np.uint8)
    if not (value % 255 == 0 if flat is None else flat):
        pixels[1:] = np.linspace(0, 255, (size - 1) * size).reshape(size - 1, size)
    Image.fromarray(pixels).save(path)


def make_category(root, name="nut", masks=True):
    for index in range(10):
        write(root / name / f"train/good/{index:03d}.png", index * 10, flat=False)
    for index in range(3):
        write(root / name / f"test/good/{index:03d}.png", 55)
        write(root / name / f"test/bent/{index:03d}.png", 200)
        if masks:
            path = root / name / f"ground_truth/bent/{index:03d}_mask.png"
            write(path, 0)
            mask = np.zeros((16, 16), np.uint8)
            mask[index, :4] = 255
            Image.fromarray(mask).save(path)
    return root / name


def config_for(root, category="nut", **fields):
    fields = {"image_size": 16, "channels": 1, **fields}
    return DataConfig(source="folder", root=str(root), category=category, **fields)


def test_a_category_is_loaded_with_its_masks(tmp_path):
    make_category(tmp_path)
    config = config_for(tmp_path, calibration_fraction=0.2)
    dataset = load_dataset(config, "nut")
    assert (len(dataset.train), len(dataset.calibration), len(dataset.test)) == (8, 2, 6)
    assert dataset.train.images.dtype == np.uint8
    normal = np.concatenate([dataset.train.images, dataset.calibration.images])
    assert sorted(normal[:, 0, 0, 0]) == list(range(0, 100, 10))
    assert dataset.train.names == sorted(dataset.train.names)
    np.testing.assert_array_equal(dataset.test.labels, [0, 0, 0, 1, 1, 1])
    assert dataset.test.names[3] == "test/bent/000.png"
    masks = np.stack(dataset.test.masks)
    assert masks[4, 1, :4].all()
    assert masks.sum() == 12


def test_a_plain_folder_needs_no_masks_and_no_category(tmp_path):
    make_category(tmp_path, "bolts", masks=False)
    dataset = load_dataset(config_for(tmp_path / "bolts", ""), "")
    assert dataset.category == "bolts"
    assert dataset.test.masks is None


def test_all_lists_every_category(tmp_path):
    make_category(tmp_path, "nut")
    make_category(tmp_path, "bolt")
    (tmp_path / "notes").mkdir()
    assert list_categories(config_for(tmp_path, "all")) == ["bolt", "nut"]


def test_large_sets_are_memory_mapped(tmp_path):
    make_category(tmp_path)
    fields = {"calibration_fraction": 0.2}
    config = config_for(tmp_path, memory_limit_mb=0, **fields)
    dataset = load_dataset(config, "nut", tmp_path / "cache")
    plain = load_dataset(config_for(tmp_path, **fields), "nut", tmp_path / "cache")
    for split in ("train", "calibration", "test"):
        mapped = getattr(dataset, split)
        assert isinstance(mapped.images, np.memmap)
        np.testing.assert_array_equal(mapped.images, getattr(plain, split).images)
        assert mapped.names == getattr(plain, split).names


def no_train(folder):
    (folder / "train/good").rename(folder / "train/fine")


def empty_train(folder):
    for file in (folder / "train/good").iterdir():
        file.unlink()


def broken_test(folder):
    (folder / "test").rename(folder / "tests")
    (folder / "test").symlink_to(folder / "away")


def empty_test_good(folder):
    for file in (folder / "test/good").iterdir():
        file.unlink()


def no_mask(folder):
    (folder / "ground_truth/bent/001_mask.png").unlink()


def truncated(folder):
    path = folder / "train/good/003.png"
    path.write_bytes(path.read_bytes()[:40])


def foreign(folder):
    (folder / "test/bent/notes.txt").write_text("hello")


def disguised(folder):
    (folder / "test/bent/000.png").write_text("hello")


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (no_train, r"train/good: missing; put normal images there, or set data.category"),
        (empty_train, r"train/good: empty; put images there"),
        (broken_test, r"test: cannot be read"),
        (empty_test_good, r"test/good: empty; put images there"),
        (no_mask, r"001_mask\.png: the mask of .*001\.png is missing"),
        (truncated, r"train/good/003\.png: is not a whole image file"),
        (foreign, r"test/bent/notes\.txt: is not an image"),
        (disguised, r"test/bent/000\.png: is not a whole image file"),
    ],
)
def test_broken_folders_are_named(tmp_path, breakage, message):
    breakage(make_category(tmp_path))
    with pytest.raises(DataError, match=message):
        load_dataset(config_for(tmp_path), "nut")


def test_missing_roots_and_categories_are_named(tmp_path):
    make_category(tmp_path, "screw")
    with pytest.raises(DataError, match=r"no 'scew' under .*did you mean 'screw'\?"):
        load_dataset(config_for(tmp_path, "scew"), "scew")
    with pytest.raises(DataError, match=r"data.root: .*nowhere is not a folder"):
        load_dataset(config_for(tmp_path / "nowhere"), "nut")
    with pytest.raises(DataError, match=r"it is a category itself"):
        list_categories(config_for(tmp_path / "screw", "all"))
    for function in (list_categories, lambda config: load_dataset(config, "nut")):
        with pytest.raises(ConfigError, match=r"^data\.root: give the folder"):
            function(config_for(""))


def test_fewer_than_two_calibration_images_are_an_error(tmp_path):
    make_category(tmp_path)
    for file in sorted((tmp_path / "nut/train/good").iterdir())[:9]:
        file.unlink()
    assert len(load_dataset(config_for(tmp_path), "nut").train) == 1
    write(tmp_path / "nut/train/good/1.png", 10)
    message = r"data\.calibration_fraction: holds out all 2 .* images of 'nut'.* set it to 0 and sc"
    with pytest.raises(DataError, match=message):
        load_dataset(config_for(tmp_path, calibration_fraction=0.1), "nut")
    write(tmp_path / "nut/train/good/2.png", 20)
    dataset = load_dataset(config_for(tmp_path, calibration_fraction=0.1), "nut")
    assert (len(dataset.train), len(dataset.calibration)) == (1, 2)
    (tmp_path / "nut" / dataset.calibration.names[0]).write_bytes(b"")
    config = config_for(tmp_path, calibration_fraction=0.1, on_bad_file="skip")
    with pytest.raises(DataError, match=r"data\.calibration_fraction: 1 calibration image"):
        load_dataset(config, "nut")


@pytest.mark.parametrize(
    ("removed", "labels", "missing"),
    [
        (["test", "ground_truth"], [], "no normal and no defective"),
        (["test/bent"], [0, 0, 0], "no defective"),
        (["test/good"], [1, 1, 1], "no normal"),
    ],
)
def test_test_images_of_both_labels_are_not_needed(tmp_path, capsys, removed, labels, missing):
    folder = make_category(tmp_path)
    for name in removed:
        shutil.rmtree(folder / name)
    assert list_categories(config_for(tmp_path, "all")) == ["nut"]
    dataset = load_dataset(config_for(tmp_path), "nut")
    assert dataset.test.labels.tolist() == labels
    assert dataset.test.images.shape == (len(labels), 16, 16, 1)
    line = f"warning: nut: {missing} test image in {tmp_path}, so there is no AUROC\n"
    assert capsys.readouterr().err == line


def test_test_images_may_come_from_another_root(tmp_path):
    make_category(tmp_path / "old")
    make_category(tmp_path / "new", "nut")
    shutil.rmtree(tmp_path / "new/nut/train")
    (tmp_path / "new/nut/test/bent/002.png").unlink()
    config = config_for(tmp_path / "old", test_root=str(tmp_path / "new"))
    dataset = load_dataset(config, "nut")
    assert (len(dataset.train), len(dataset.test)) == (10, 5)
    assert dataset.test.names[-1] == "test/bent/001.png"
    assert np.sum(dataset.test.masks) == 8
    for name, message in {"none": "none is not a folder; give", "old/nut": "nut/test: "}.items():
        config.test_root = str(tmp_path / name)
        with pytest.raises(DataError, match=message):
            load_dataset(config, "nut")


def test_folders_are_taken_as_people_write_them(tmp_path, monkeypatch):
    make_category(tmp_path / "home/parts")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    for root in ("~/parts", "parts"):
        assert list_categories(config_for(root, "all")) == ["nut"]
        config = config_for(root, memory_limit_mb=0, cache_dir="~/cache")
        assert len(load_dataset(config, "nut").train) == 10
    assert any((tmp_path / "home/cache").iterdir())


def test_unknown_sources_are_named():
    with pytest.raises(ConfigError, match=r"^data\.source: no 'foldr'; did you mean 'folder'\?"):
        list_categories(DataConfig(source="foldr"))
