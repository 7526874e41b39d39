import gzip
import hashlib

import numpy as np
import pytest

from daad_jax.data import list_categories
from daad_jax.data.sources import mnist
from daad_jax.errors import ConfigError, DataError
from tests.data.conftest import check_against


def test_splits_are_read_in_their_order(tiny_mnist):
    folder, splits = tiny_mnist
    for split, (pixels, labels) in splits.items():
        found_pixels, found_labels = mnist.read_split(folder, split)
        np.testing.assert_array_equal(found_pixels[..., 0], pixels)
        np.testing.assert_array_equal(found_labels, labels)


@pytest.mark.parametrize("mapped", [False, True])
def test_one_digit_is_normal(load, tiny_mnist, tmp_path, mapped):
    root, splits = tiny_mnist
    limit, cache = (0, tmp_path / "cache") if mapped else (4096, None)
    fields = {"source": "mnist", "root": str(root), "calibration_fraction": 0.3}
    dataset = load("3", cache, memory_limit_mb=limit, **fields)
    check_against(dataset, splits, 3, mnist.CLASSES)
    assert (len(dataset.train), len(dataset.calibration)) == (2, 2)
    for part in (dataset.train, dataset.calibration, dataset.test):
        assert isinstance(part.images, np.memmap) == mapped


def test_categories(make_config):
    assert list_categories(make_config(source="mnist", category="all")) == list("0123456789")
    assert list_categories(make_config(source="mnist", category="9")) == ["9"]
    with pytest.raises(ConfigError, match=r"^data\.category: no class 'nine'"):
        list_categories(make_config(source="mnist", category="nine"))


def test_a_missing_file_is_named(load, tiny_mnist):
    root, _ = tiny_mnist
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"mnist/t10k-labels-idx1-ubyte\.gz: missing; data\.root"):
        load("3", source="mnist", root=str(root))


def damage(content, how):
    raw = gzip.decompress(content)
    return {
        "cut": content[: len(content) // 2],
        "text": b"not a gzip file",
        "empty": b"",
        "short": gzip.compress(raw[:-1]),
        "other": gzip.compress(b"\x00\x00\x0d" + raw[3:]),
        "header": gzip.compress(raw[:6]),
    }[how]


@pytest.mark.parametrize("how", ["cut", "text", "empty", "short", "other", "header"])
@pytest.mark.parametrize("name", mnist.FILES["train"])
def test_a_damaged_file_is_named(load, tiny_mnist, name, how):
    root, _ = tiny_mnist
    (root / name).write_bytes(damage((root / name).read_bytes(), how))
    with pytest.raises(DataError, match=rf"mnist/{name}: .*; restore") as caught:
        load("3", source="mnist", root=str(root))
    assert "\n" not in str(caught.value)


def test_another_number_of_labels_than_images_is_an_error(tiny_mnist):
    root, _ = tiny_mnist
    other = (root / "t10k-labels-idx1-ubyte.gz").read_bytes()
    (root / "train-labels-idx1-ubyte.gz").write_bytes(other)
    with pytest.raises(DataError, match="30 labels for 40 images"):
        mnist.read_split(root, "train")


@pytest.mark.slow
def test_the_real_files(load, real_mnist):
    dataset = load("8", source="mnist", root=str(real_mnist))
    assert (len(dataset.train), len(dataset.test)) == (5851, 10_000)
    assert dataset.test.labels.sum() == 9026
    train, labels = mnist.read_split(real_mnist, "train")
    np.testing.assert_array_equal(dataset.train.images, train[labels == 8])
    # The pixels of the test split as published.
    content = gzip.decompress((real_mnist / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    found = hashlib.sha256(np.ascontiguousarray(dataset.test.images).tobytes()).hexdigest()
    assert found == hashlib.sha256(content).hexdigest()
