import tarfile

import numpy as np
import pytest

from daad_jax.data import list_categories
from daad_jax.data.sources import cifar10
from daad_jax.errors import DataError
from tests.data.conftest import check_against


def archive_of(root, folder):
    """Writes the archive of the folder with the original files and returns its path."""
    path = folder / cifar10.ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root / cifar10.FOLDER, arcname=cifar10.FOLDER)
    return path


@pytest.mark.parametrize("inside", ["", cifar10.FOLDER])
def test_splits_are_read_from_the_folder_or_its_parent(tiny_cifar10, inside):
    root, splits = tiny_cifar10
    contents = cifar10.read_files(root / inside)
    for split, (pixels, labels) in splits.items():
        found_pixels, found_labels = cifar10.parse_split(contents, split)
        np.testing.assert_array_equal(found_pixels, pixels)
        np.testing.assert_array_equal(found_labels, labels)


def test_one_class_is_normal(load, tiny_cifar10):
    root, splits = tiny_cifar10
    dataset = load("5", source="cifar10", root=str(root))
    check_against(dataset, splits, 5, cifar10.CLASSES)
    assert dataset.category == "dog"
    by_name = load("dog", source="cifar10", root=str(root))
    np.testing.assert_array_equal(by_name.test.images, dataset.test.images)


def test_the_archive_is_read_too(load, tiny_cifar10, tmp_path):
    root, splits = tiny_cifar10
    archive_of(root, tmp_path)
    dataset = load("ship", source="cifar10", root=str(tmp_path))
    check_against(dataset, splits, 8, cifar10.CLASSES)


@pytest.mark.parametrize("how", ["cut", "text", "empty", "incomplete"])
def test_a_damaged_archive_is_named(load, tiny_cifar10, tmp_path, how):
    root, _ = tiny_cifar10
    if how == "incomplete":
        (root / cifar10.FOLDER / "data_batch_3.bin").unlink()
    path = archive_of(root, tmp_path)
    content = path.read_bytes()
    contents = {"cut": content[: len(content) // 2], "text": b"no archive", "empty": b""}
    path.write_bytes(contents.get(how, content))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: .*; restore it") as caught:
        load("ship", source="cifar10", root=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_categories(make_config):
    names = list_categories(make_config(source="cifar10", category="all"))
    assert names == list(cifar10.CLASSES)
    assert list_categories(make_config(source="cifar10", category="9")) == ["truck"]


def test_a_missing_file_is_named(load, tiny_cifar10):
    root, _ = tiny_cifar10
    (root / cifar10.FOLDER / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: missing; data\.root must hold CIFAR"):
        load("ship", source="cifar10", root=str(root))


@pytest.mark.parametrize("content", [b"", b"\x01" * 3072, b"\x0a" * 3073])
def test_a_damaged_file_is_named(load, tiny_cifar10, content):
    root, _ = tiny_cifar10
    (root / cifar10.FOLDER / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3\.bin: .*; restore the original file$"):
        load("ship", source="cifar10", root=str(root))


@pytest.mark.slow
def test_the_real_files(load, real_cifar10):
    dataset = load("ship", source="cifar10", root=str(real_cifar10))
    assert (len(dataset.train), len(dataset.test)) == (5000, 10_000)
    assert dataset.test.labels.sum() == 9000
    contents = cifar10.read_files(real_cifar10)
    for split, part in (("train", dataset.train), ("test", dataset.test)):
        # Each record of a file is the label, then one plane for each channel.
        files = [content for path, content in contents.items() if path.name in cifar10.FILES[split]]
        records = np.frombuffer(b"".join(files), np.uint8).reshape(-1, 3073)
        chosen = records[records[:, 0] == 8] if split == "train" else records
        planes = part.images.transpose(0, 3, 1, 2).reshape(len(part), -1)
        np.testing.assert_array_equal(planes, chosen[:, 1:])
        np.testing.assert_array_equal(part.labels, chosen[:, 0] != 8)
