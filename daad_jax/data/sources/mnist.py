"""MNIST from its four original files; the train and the test split are the original ones."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import originals
from daad_jax.data.dataset import Dataset
from daad_jax.data.decode import read_bytes
from daad_jax.data.one_class import choose_classes, load_one_class, raw_split
from daad_jax.errors import DataError

CLASSES = tuple("0123456789")
# For each split the files with the images and the labels.
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_ALL_FILES = (*FILES["train"], *FILES["test"])
_SIZE = (28, 28)


def list_categories(config: DataConfig) -> list[str]:
    """Returns the digits that `data.category` stands for.

    Raises:
        ConfigError: if there is no such digit.
    """
    return choose_classes(config.category, CLASSES)


def load(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Loads MNIST with one digit as the normal class.

    Args:
        config: root ("" to download the files), size, channels, filter and held-out images.
        category: the normal class, "0" to "9".
        cache: folder for arrays above the memory limit; None keeps them in memory.

    Returns:
        The data set: the training images of the normal class, and all 10,000 test images.

    Raises:
        ConfigError: if there is no such class.
        DataError: if a file is missing or damaged, or the files cannot be downloaded.
    """
    folder = originals.find_folder(config, "MNIST", _ALL_FILES)
    for name in _ALL_FILES:
        if not (folder / name).is_file():
            raise originals.missing(folder / name, "MNIST", _ALL_FILES)
    train = raw_split("train", *read_split(folder, "train"))
    test = raw_split("test", *read_split(folder, "test"))
    return load_one_class("MNIST", CLASSES, (train, test), config, category, cache)


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split in its original order.

    Args:
        folder: the folder with the original files.
        split: "train" or "test".

    Returns:
        The images, uint8 ``(n, 28, 28, 1)``, and their labels, uint8 ``(n,)``.

    Raises:
        DataError: if a file is missing or damaged.
    """
    images_path, labels_path = (folder / name for name in FILES[split])
    pixels = _read_idx(images_path, dimensions=3)
    labels = _read_idx(labels_path, dimensions=1)
    if pixels.shape[1:] != _SIZE:
        raise DataError(f"{images_path}: its images are not 28 x 28; restore the original file")
    if len(pixels) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels for {len(pixels)} images; restore the original "
            "files"
        )
    originals.check_labels(labels_path, labels, CLASSES)
    return pixels[..., None], labels


def _read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes: magic number, sizes, values."""
    try:
        data = gzip.decompress(read_bytes(path))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is not a complete gzip file; restore it") from error
    begin = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < begin:
        raise DataError(f"{path}: is not an IDX file of bytes; restore the original file")
    sizes = tuple(int(size) for size in np.frombuffer(data[4:begin], ">u4"))
    if len(data) - begin != int(np.prod(sizes)):
        raise DataError(f"{path}: has more or fewer bytes than its header says; restore it")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(sizes)
