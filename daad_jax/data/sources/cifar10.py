"""CIFAR-10 from its original binary files, with the original training and test split."""

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data import originals
from daad_jax.data.decode import read_bytes
from daad_jax.data.one_class import LabelledSet, LabelledSource, in_memory
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


def open_set(config: DataConfig) -> LabelledSet:
    """Opens CIFAR-10 in `data.root`, or downloads its archive if that is empty.

    Raises DataError if a file is missing or damaged, or the archive cannot be downloaded.
    """
    contents = read_files(originals.find_folder(config, "CIFAR-10", [ARCHIVE]))
    return LabelledSet(
        "CIFAR-10", CLASSES, *(in_memory(*parse_split(contents, split)) for split in FILES)
    )


def read_files(root: Path) -> dict[Path, bytes]:
    """Reads the six original files. Returns their bytes by path.

    `root` is a folder that holds the files, their folder ``cifar-10-batches-bin`` or the archive
    ``cifar-10-binary.tar.gz``. Raises DataError if a file is missing or the archive is damaged.
    """
    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    absent = [folder / name for name in _ALL_FILES if not (folder / name).is_file()]
    if not absent:
        return {folder / name: read_bytes(folder / name) for name in _ALL_FILES}
    if (root / ARCHIVE).is_file():
        return _read_archive(root / ARCHIVE)
    raise originals.missing(absent[0], "CIFAR-10", [*_ALL_FILES, f"or {ARCHIVE}"])


def parse_split(contents: Mapping[Path, bytes], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Parses the files of one split, "train" or "test", in their original order.

    `contents` is what `read_files` returned. Returns the images, uint8 ``(n, 32, 32, 3)``, and
    their labels, uint8 ``(n,)``. Raises DataError if a file is damaged.
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


SOURCE = LabelledSource(open_set, CLASSES)
