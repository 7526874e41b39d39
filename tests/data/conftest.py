import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daad_jax import config as config_lib

REPOSITORY = Path(__file__).parents[2]


def data_config(**fields):
    config = config_lib.Config()
    config.train.batch_size = 1
    config.data.image_size = 16
    for name, value in fields.items():
        assert hasattr(config.data, name)
        setattr(config.data, name, value)
    return config


@pytest.fixture
def make_config():
    """Makes a config from fields of its data section."""
    return data_config


@pytest.fixture
def tiny_mnist(tmp_path):
    """Fabricated MNIST files: the folder, and (images, labels) of each split."""
    root = tmp_path / "mnist"
    root.mkdir()
    splits = {}
    for seed, (split, prefix, count) in enumerate([("train", "train", 40), ("test", "t10k", 30)]):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", pixels)
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", labels)
        splits[split] = (pixels, labels)
    return root, splits


@pytest.fixture
def tiny_cifar10(tmp_path):
    """Fabricated CIFAR-10 files: the folder that holds theirs, and each split's content."""
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
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
    return folder.parent, {"train": train, "test": batches[5]}


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
