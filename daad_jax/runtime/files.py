"""Paths as people write them, and atomic writes.

After a crash a file is either the complete old one or the complete new one.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as people write it: ``~`` is the home folder."""
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path; when the body ends, the file written there replaces `path`.

    The new file is flushed to the disk before it is renamed. If the body raises or the process
    dies, `path` is unchanged; the temporary file stays and the next attempt overwrites it. The
    folder must exist, and only one process may write `path` at a time.
    """
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n")
