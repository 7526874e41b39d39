"""A memory-mapped cache of decoded, resized images.

An entry is one ``.npy`` file named after its key: a hash of everything that decides its pixels. It
is written in a private folder beside the entries and renamed once it is whole and on the disk, so
an entry that exists is finished, whoever made it. Processes that want the same missing entry at
once each make it; the last rename wins, with the same pixels.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_BUILDING = ".building-"
_ABANDONED_SECONDS = 24 * 3600


def open_entry(folder: Path, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Memory-maps an entry, read-only.

    Args:
        folder: the cache.
        key: the entry's key.
        shape: what the entry must have.

    Returns:
        uint8 array of `shape`, or None when there is no such entry, or only a damaged one.
    """
    try:
        array = np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def build_entry(
    folder: Path, key: str, shape: tuple[int, ...], images: Iterable[np.ndarray]
) -> np.ndarray:
    """Writes an entry and memory-maps it.

    Args:
        folder: the cache; made where missing.
        key: the entry's key.
        shape: ``(n, H, W, C)``.
        images: ``n`` uint8 images ``(H, W, C)`` in order.

    Returns:
        uint8 array of `shape`, read-only.

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
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for image in images:
                file.write(np.ascontiguousarray(image).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder / f"{key}.npy")
    finally:
        shutil.rmtree(private, ignore_errors=True)
    entry = open_entry(folder, key, shape)
    assert entry is not None, "fewer or more images than the shape says"
    return entry


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
