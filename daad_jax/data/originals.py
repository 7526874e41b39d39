"""The original files of MNIST and CIFAR-10."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daad_jax.data import images
from daad_jax.errors import DataError

# Takes one of a set's file names and returns the file's bytes.
Reader = Callable[[str], bytes]


@dataclass(frozen=True)
class Original:
    """A labelled set in its original files.

    Attributes:
        title: its name for people.
        classes: the classes' names, in the order of their numbers.
        shape: ``(H, W, C)`` of an image.
        folder: the folder that the archive unpacks to; "" where there is no archive.
        files: for each split its files.
        parse: takes a split's file names and a reader and returns uint8 ``(n, H, W, C)`` and the
            classes, int ``(n,)``.
    """

    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    folder: str
    files: Mapping[str, tuple[str, ...]]
    parse: Callable[[tuple[str, ...], Reader], tuple[np.ndarray, np.ndarray]]

    @property
    def all_files(self) -> tuple[str, ...]:
        """The files of all splits."""
        return tuple(name for files in self.files.values() for name in files)


def read_split(original: Original, split: str, read: Reader) -> tuple[np.ndarray, np.ndarray]:
    """Reads the "train" or "test" images in their original order.

    Returns:
        uint8 ``(n, H, W, C)`` and the classes, int ``(n,)``.

    Raises:
        DataError: naming the file that is missing, damaged or of another kind.
    """
    return original.parse(original.files[split], read)


def folder_reader(original: Original, root: str) -> Reader:
    """Returns the reader of the files under `root`, or under the archive's folder in it.

    Raises:
        DataError: if a file is missing.
    """
    folder = Path(root)
    if original.folder and (folder / original.folder).is_dir():
        folder = folder / original.folder
    for name in original.all_files:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name}: missing; data.root must hold {original.title}'s original "
                f"files: {', '.join(original.all_files)}"
            )
    return lambda name: images.read_bytes(folder / name)


def fingerprint(original: Original, read: Reader) -> str:
    """A hash of the names and bytes of all files."""
    total = hashlib.blake2b(digest_size=16)
    for name in original.all_files:
        content = read(name)
        total.update(f"{name} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _parse_mnist(files: tuple[str, ...], read: Reader) -> tuple[np.ndarray, np.ndarray]:
    pixels = _parse_idx(files[0], read(files[0]), dimensions=3)
    labels = _parse_idx(files[1], read(files[1]), dimensions=1)
    if pixels.shape[1:] != MNIST.shape[:2]:
        raise DataError(f"{files[0]}: its images are not 28 x 28; restore the original file")
    if len(pixels) != len(labels):
        raise DataError(
            f"{files[1]}: {len(labels)} labels for {len(pixels)} images; restore the original files"
        )
    return pixels[..., None], _check_labels(files[1], labels, MNIST)


def _parse_idx(name: str, content: bytes, *, dimensions: int) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes: magic number, sizes, values."""
    try:
        data = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: is not a whole gzip file; restore it") from error
    begin = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < begin:
        raise DataError(f"{name}: is not an IDX file of bytes; restore the original file")
    sizes = tuple(int(size) for size in np.frombuffer(data[4:begin], ">u4"))
    if len(data) - begin != int(np.prod(sizes)):
        raise DataError(f"{name}: has more or fewer bytes than its header says; restore it")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(sizes)


def _parse_cifar10(files: tuple[str, ...], read: Reader) -> tuple[np.ndarray, np.ndarray]:
    height, width, channels = CIFAR10.shape
    pixels, labels = [], []
    for name in files:
        content = np.frombuffer(read(name), np.uint8)
        if not len(content) or len(content) % (1 + height * width * channels):
            raise DataError(f"{name}: is not a whole number of images; restore the original file")
        records = content.reshape(-1, 1 + height * width * channels)
        labels.append(_check_labels(name, records[:, 0], CIFAR10))
        pixels.append(records[:, 1:].reshape(-1, channels, height, width).transpose(0, 2, 3, 1))
    return np.concatenate(pixels), np.concatenate(labels)


def _check_labels(name: str, labels: np.ndarray, original: Original) -> np.ndarray:
    if len(labels) and labels.max() >= len(original.classes):
        raise DataError(
            f"{name}: has the class {labels.max()}, and {original.title} has "
            f"{len(original.classes)}; restore the original file"
        )
    return labels.astype(np.int64)


MNIST = Original(
    "MNIST",
    tuple("0123456789"),
    (28, 28, 1),
    "",
    {
        "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    },
    _parse_mnist,
)
CIFAR10 = Original(
    "CIFAR-10",
    (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    (32, 32, 3),
    "cifar-10-batches-bin",
    {
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    _parse_cifar10,
)
ORIGINALS = {"mnist": MNIST, "cifar10": CIFAR10}
