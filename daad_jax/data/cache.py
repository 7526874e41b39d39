"""A memory-mapped cache of decoded, resized images.

An entry is one ``.npy`` file named after its key: a hash of everything that decides its pixels.
Behind the array stand, as JSON, the images that could not be decoded and so are not in it. It is
written in a private folder beside the entries and renamed once it is whole and on the disk, so an
entry that exists is finished, whoever made it. Processes that want the same missing entry at once
each make it; the last rename wins, with the same pixels.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

_BUILDING = ".building-"
_ABANDONED_SECONDS = 24 * 3600


class Entry(NamedTuple):
    """What an entry holds.

    Attributes:
        images: uint8 ``(n - len(left_out), H, W, C)``, memory-mapped and read-only.
        left_out: by its index from 0 to n - 1, why an image is not there.
    """

    images: np.ndarray
    left_out: dict[int, str]


def open_entry(folder: Path, key: str, shape: tuple[int, ...]) -> Entry | None:
    """Memory-maps an entry.

    Args:
        folder: the cache.
        key: the entry's key.
        shape: ``(n, H, W, C)``, of all images that the key stands for.

    Returns:
        The entry, or None when there is no such one, or only a damaged one.
    """
    path = folder / f"{key}.npy"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(array.offset + array.nbytes)
            left_out = {int(index): reason for index, reason in json.loads(file.read() or "[]")}
    except (FileNotFoundError, ValueError, TypeError, EOFError):
        return None
    expected = (shape[0] - len(left_out), *shape[1:])
    return Entry(array, left_out) if (array.shape, array.dtype) == (expected, np.uint8) else None


def build_entry(
    folder: Path, key: str, shape: tuple[int, ...], images: Iterable[np.ndarray | str]
) -> Entry:
    """Writes an entry and memory-maps it.

    Args:
        folder: the cache; made where missing.
        key: the entry's key.
        shape: ``(n, H, W, C)``.
        images: in order ``n`` uint8 images ``(H, W, C)`` or reasons why there is none.

    Returns:
        The entry.

    Raises:
        OSError: if the folder cannot be written to or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    private = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder))
    try:
        partial = private / "images.npy"
        # Plain writes, because a full disk kills a process that writes to a memory map.
        with partial.open("wb") as file:
            _write_entry(file, shape, images)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder / f"{key}.npy")
    finally:
        shutil.rmtree(private, ignore_errors=True)
    entry = open_entry(folder, key, shape)
    assert entry is not None, "fewer or more images than the shape says"
    return entry


def _write_entry(
    file: BinaryIO, shape: tuple[int, ...], images: Iterable[np.ndarray | str]
) -> None:
    _write_header(file, shape)
    left_out = []
    for index, image in enumerate(images):
        if isinstance(image, str):
            left_out.append((index, image))
        else:
            file.write(np.ascontiguousarray(image).data)
    if left_out:
        file.write(json.dumps(left_out).encode())
        file.seek(0)
        _write_header(file, (shape[0] - len(left_out), *shape[1:]))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Writes a header, which NumPy makes equally long for any number of images."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed builds left, recognised by a day without a write."""
    limit = time.time() - _ABANDONED_SECONDS
    for private in folder.glob(f"{_BUILDING}*"):
        try:
            newest = max(path.stat().st_mtime for path in (private, *private.iterdir()))
        except OSError:
            continue  # another process is removing it
        if newest < limit:
            shutil.rmtree(private, ignore_errors=True)
