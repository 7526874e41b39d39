import numpy as np
import pytest
from PIL import Image

from daad_jax.data import list_categories, load_dataset
from daad_jax.errors import DataError
from tests.conftest import tiny_config


def write(path, value=100, size=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), value, np.uint8)).save(path)


def make_category(root, name="nut", masks=True):
    for index in range(10):
        write(root / name / f"train/good/{index:03d}.png", index * 10)
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


def config_for(root, category="nut", **overrides):
    return tiny_config(
        data__source="mvtec", data__root=str(root), data__category=category, **overrides
    )


def test_a_category_is_loaded_with_its_masks(tmp_path):
    make_category(tmp_path)
    config = config_for(tmp_path, data__calibration_fraction=0.2)
    dataset = load_dataset(config, "nut")
    assert (len(dataset.train), len(dataset.calibration), len(dataset.test)) == (8, 2, 6)
    assert dataset.train.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], np.arange(8) * 10)
    np.testing.assert_array_equal(dataset.calibration.images[:, 0, 0, 0], [80, 90])
    np.testing.assert_array_equal(dataset.test.labels, [0, 0, 0, 1, 1, 1])
    assert dataset.test.names[3] == "test/bent/000.png"
    assert dataset.test.masks[4, 1, :4].all()
    assert dataset.test.masks.sum() == 12
    sizes = [(tmp_path / "nut" / name).stat().st_size for name in dataset.test.names]
    np.testing.assert_array_equal(dataset.test.file_sizes, sizes)


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
    config = config_for(tmp_path, data__memory_limit_mb=0)
    dataset = load_dataset(config, "nut", tmp_path / "cache")
    assert isinstance(dataset.train.images.base, np.memmap)
    plain = load_dataset(config_for(tmp_path), "nut", tmp_path / "cache")
    np.testing.assert_array_equal(dataset.train.images, plain.train.images)


def no_train(folder):
    (folder / "train/good").rename(folder / "train/fine")


def empty_train(folder):
    for file in (folder / "train/good").iterdir():
        file.unlink()


def no_test(folder):
    (folder / "test").rename(folder / "tests")


def only_good(folder):
    for file in (folder / "test/bent").iterdir():
        file.unlink()
    (folder / "test/bent").rmdir()


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
        (no_train, r"train/good: missing; expected"),
        (empty_train, r"train/good: empty; put images there"),
        (no_test, r"test/good: missing; expected"),
        (only_good, r"test: no folder with defective images"),
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


def test_fewer_images_than_a_batch_are_refused(tmp_path):
    make_category(tmp_path)
    config = config_for(tmp_path, train__batch_size=16)
    with pytest.raises(DataError, match="train.batch_size: 16 is more than the 10"):
        load_dataset(config, "nut")
