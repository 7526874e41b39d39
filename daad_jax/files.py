"""Files that are there whole or not at all, whenever the process or the machine stops."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name of a new file that takes the place of `path` once it is whole and on the disk.

    What was at `path` stays if the body raises or the process dies; the new file's part then stays
    under its own name and is written over by the next attempt.

    Args:
        path: in a folder that exists; one process at a time may write it.
    """
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
