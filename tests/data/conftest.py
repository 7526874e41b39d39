import gzip
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import load_dataset

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def make_config():
    """Makes a data config with 16 px images."""
    return lambda **fields: DataConfig(**{"image_size": 16, **fields})


@pytest.fixture
def tiny_mnist(tmp_path):
    """Made-up MNIST files: their folder, and the images and labels of each split."""
    root = tmp_path / "mnist"
    return root, make_mnist(root)


def make_mnist(root, train=40, test=30):
    """Writes made-up MNIST files. Returns the images and labels of each split."""
    root.mkdir(parents=True)
    splits = {}
    for seed, (split, prefix, count) in enumerate(
        [("train", "train", train), ("test", "t10k", test)]
    ):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", pixels)
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", labels)
        splits[split] = (pixels, labels)
    return splits


@pytest.fixture
def tiny_cifar10(tmp_path):
    """Made-up CIFAR-10 files: the parent of their folder, and each split's images and labels."""
    root = tmp_path / "cifar10"
    return root, make_cifar10(root)


def make_cifar10(root):
    """Writes made-up CIFAR-10 files. Returns the images and labels of each split."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    batches = []
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        labels = rng.permutation(20).astype(np.uint8) % 10
        pixels = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        records = np.concatenate([labels[:, None], pixels.reshape(20, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
        batches.append((pixels.transpose(0, 2, 3, 1), labels))
    train = tuple(np.concatenate(part) for part in zip(*batches[:5], strict=True))
    return {"train": train, "test": batches[5]}


def write_idx(path, values):
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def image_folder(tmp_path):
    """A small folder in the MVTec AD layout: 5 to train, 2 good and 3 defective to test."""
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for part, count in {"train/good": 5, "test/good": 2, "test/bad": 3}.items():
        folder = root / "widget" / part
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def real_data():
    """The folder with real images, or a skip."""
    folder = Path(os.environ.get("DAAD_JAX_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set DAAD_JAX_DATA to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def real_mnist(real_data):
    if not (real_data / "mnist").is_dir():
        pytest.skip(f"no mnist folder in {real_data}")
    return real_data / "mnist"


@pytest.fixture(scope="session")
def real_cifar10(real_data, tmp_path_factory):
    folder = real_data / "cifar10"
    if (folder / "cifar-10-batches-bin").is_dir():
        return folder
    if not (folder / "unpack.py").is_file():
        pytest.skip(f"no CIFAR-10 in {folder}")
    unpacked = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, folder / "unpack.py", unpacked], check=True)
    (unpacked / "cifar-10-binary.tar.gz").unlink()
    return unpacked


@pytest.fixture
def load(make_config, tmp_path):
    """Loads a labelled set at its own size; downloads go to the test's folder."""

    def load(category, cache=None, **fields):
        size, channels = (32, 3) if fields["source"] == "cifar10" else (28, 1)
        fields = {"image_size": size, "channels": channels, "category": category, **fields}
        return load_dataset(
            make_config(tfds_dir=os.fspath(tmp_path / "tfds"), **fields), category, cache
        )

    return load


@pytest.fixture
def offline(monkeypatch):
    """No server can be reached."""

    def refuse(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def check_against(dataset, splits, normal, classes):
    """Checks that a data set has exactly the pixels and classes of the original splits."""
    pixels, labels = splits["train"]
    found = {}
    for part in (dataset.train, dataset.calibration):
        for name, image in zip(part.names, part.images, strict=True):
            found[int(name.rsplit("/", 1)[1])] = image.squeeze()
    assert sorted(found) == np.flatnonzero(labels == normal).tolist()
    for index, image in found.items():
        np.testing.assert_array_equal(image, pixels[index])
    pixels, labels = splits["test"]
    np.testing.assert_array_equal(dataset.test.images.squeeze(), pixels)
    expected = ["good" if label == normal else classes[label] for label in labels]
    assert dataset.test.kinds == expected
    assert len(set(dataset.test.names)) == len(pixels)
