"""A cache of decoded images in memory-mapped files.

An entry is one ``.npy`` file. Its name is a key: a hash of everything that determines the pixels.
After the array, the file lists as JSON the images that could not be decoded. It is written in a
private temporary folder and renamed when it is complete and on the disk, so an existing entry is
always complete. Processes that build the same entry at the same time do not disturb each other:
each writes its own file, and the last rename wins with the same pixels.
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
    """The content of an entry.

    `images` is uint8 ``(n - len(left_out), H, W, C)``, memory-mapped and read-only. `left_out` maps
    the index of each image that could not be decoded, 0 to n - 1, to the reason.
    """

    images: np.ndarray
    left_out: dict[int, str]


def open_entry(folder: Path, key: str, shape: tuple[int, ...]) -> Entry | None:
    """Memory-maps an entry. Returns None if it is missing or damaged.

    `shape` is ``(n, H, W, C)`` and includes the images that could not be decoded.
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
    """Writes an entry and memory-maps it. The folder is created if it is missing.

    `shape` is ``(n, H, W, C)``. `images` gives n values in order, each a uint8 image ``(H, W, C)``
    or the reason why it could not be decoded. Raises OSError if the folder is not writable or the
    disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    private = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder))
    try:
        partial = private / "images.npy"
        # Not written through a memory map: on a full disk that would kill the process.
        with partial.open("wb") as file:
            _write_entry(file, shape, images)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder / f"{key}.npy")
    finally:
        shutil.rmtree(private, ignore_errors=True)
    entry = open_entry(folder, key, shape)
    assert entry is not None, "the number of images differs from the shape"
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
    """Writes a NumPy header. Its length does not depend on the number of images."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary folders of killed builds, not written to for a day."""
    limit = time.time() - _ABANDONED_SECONDS
    for private in folder.glob(f"{_BUILDING}*"):
        try:
            newest = max(path.stat().st_mtime for path in (private, *private.iterdir()))
        except OSError:
            continue  # removed by another process
        if newest < limit:
            shutil.rmtree(private, ignore_errors=True)
