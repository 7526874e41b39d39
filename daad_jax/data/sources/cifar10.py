"""CIFAR-10 from its original binary files; the train and the test split are the original ones."""

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import originals
from daad_jax.data.dataset import Dataset
from daad_jax.data.decode import read_bytes
from daad_jax.data.one_class import choose_classes, load_one_class, raw_split
from daad_jax.errors import DataError

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"  # in the archive
FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
_ALL_FILES = (*FILES["train"], *FILES["test"])
_CHANNELS, _HEIGHT, _WIDTH = 3, 32, 32
_RECORD = 1 + _CHANNELS * _HEIGHT * _WIDTH  # bytes: the label, then the planes of the image


def list_categories(config: DataConfig) -> list[str]:
    """Returns the classes that `data.category` stands for.

    Raises:
        ConfigError: if there is no such class.
    """
    return choose_classes(config.category, CLASSES)


def load(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Loads CIFAR-10 with one class as the normal one.

    Args:
        config: root ("" to download the archive), size, channels, filter and held-out images.
        category: the normal class, by name or index.
        cache: folder for arrays above the memory limit; None keeps them in memory.

    Returns:
        The data set: the training images of the normal class, and all 10,000 test images.

    Raises:
        ConfigError: if there is no such class.
        DataError: if a file is missing or damaged, or the archive cannot be downloaded.
    """
    contents = read_files(originals.find_folder(config, "CIFAR-10", [ARCHIVE]))
    train = raw_split("train", *parse_split(contents, "train"))
    test = raw_split("test", *parse_split(contents, "test"))
    return load_one_class("CIFAR-10", CLASSES, (train, test), config, category, cache)


def read_files(root: Path) -> dict[Path, bytes]:
    """Reads the six original files.

    Args:
        root: the folder that holds the files, or their folder ``cifar-10-batches-bin``, or the
            archive ``cifar-10-binary.tar.gz``.

    Returns:
        The files' bytes by path.

    Raises:
        DataError: if a file is missing or the archive is damaged.
    """
    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    absent = [folder / name for name in _ALL_FILES if not (folder / name).is_file()]
    if not absent:
        return {folder / name: read_bytes(folder / name) for name in _ALL_FILES}
    if (root / ARCHIVE).is_file():
        return _read_archive(root / ARCHIVE)
    raise originals.missing(absent[0], "CIFAR-10", [*_ALL_FILES, f"or {ARCHIVE}"])


def parse_split(contents: Mapping[Path, bytes], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Parses the files of one split, in their original order.

    Args:
        contents: the bytes of the six files by path.
        split: "train" or "test".

    Returns:
        The images, uint8 ``(n, 32, 32, 3)``, and their labels, uint8 ``(n,)``.

    Raises:
        DataError: if a file is damaged.
    """
    by_name = {path.name: path for path in contents}
    pixels, labels = [], []
    for path in (by_name[name] for name in FILES[split]):
        content = np.frombuffer(contents[path], np.uint8)
        if not len(content) or len(content) % _RECORD:
            raise DataError(f"{path}: is not a whole number of images; restore the original file")
        records = content.reshape(-1, _RECORD)
        originals.check_labels(path, records[:, 0], CLASSES)
        labels.append(records[:, 0])
        planes = records[:, 1:].reshape(-1, _CHANNELS, _HEIGHT, _WIDTH)
        pixels.append(planes.transpose(0, 2, 3, 1))
    return np.concatenate(pixels), np.concatenate(labels)


def _read_archive(archive: Path) -> dict[Path, bytes]:
    wanted = {f"{FOLDER}/{name}" for name in _ALL_FILES}
    contents = {}
    try:
        with tarfile.open(archive, "r|gz") as tar:  # one pass; a gzip file cannot be searched
            for member in tar:
                file = tar.extractfile(member) if member.name in wanted else None
                if file is not None:
                    contents[archive / member.name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive}: is not a complete archive; restore it") from error
    if len(contents) < len(wanted):
        raise DataError(f"{archive}: does not hold CIFAR-10's six files; restore it")
    return contents
