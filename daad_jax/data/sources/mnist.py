"""MNIST from its four original files, with the original training and test split."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import originals
from daad_jax.data.decode import read_bytes
from daad_jax.data.one_class import LabelledSet, LabelledSource, in_memory
from daad_jax.errors import DataError

CLASSES = tuple("0123456789")
# For each split the files with the images and the labels.
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_ALL_FILES = (*FILES["train"], *FILES["test"])
_SIZE = (28, 28)


def open_set(config: DataConfig) -> LabelledSet:
    """Opens MNIST in `data.root`, or downloads it if that is empty.

    Raises DataError if a file is missing or damaged, or the files cannot be downloaded.
    """
    folder = originals.find_folder(config, "MNIST", _ALL_FILES)
    for name in _ALL_FILES:
        if not (folder / name).is_file():
            raise originals.missing(folder / name, "MNIST", _ALL_FILES)
    splits = (in_memory(*read_split(folder, split)) for split in FILES)
    return LabelledSet("MNIST", CLASSES, *splits)


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split, "train" or "test", in its original order.

    Returns the images, uint8 ``(n, 28, 28, 1)``, and their labels, uint8 ``(n,)``. Raises DataError
    if a file is missing or damaged.
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


SOURCE = LabelledSource(open_set, CLASSES)
