"""Lists the picture files that a command is given, and watches folders for new ones."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from daad_jax.data.decode import SUFFIXES
from daad_jax.data.paths import is_by_system, is_folder
from daad_jax.errors import DataError
from daad_jax.runtime.files import user_path

LIST = "-"


class Inputs(NamedTuple):
    """What the inputs of a command stand for.

    `files` are absolute paths without duplicates. `folders` are the folders among the inputs.
    `passed_over` counts the files in folders that are not pictures by their name.
    """

    files: list[str]
    folders: list[Path]
    passed_over: int


def list_inputs(inputs: Sequence[str], listed: TextIO, *, without: Path) -> Inputs:
    """Lists the pictures of folders with their subfolders, globs, files and a list of files.

    The input ``-`` reads the list from `listed`, a path per line; paths in it need not exist. The
    folder `without` and hidden files and folders are passed over.

    Raises DataError if another input does not exist, or a glob matches nothing.
    """
    files: dict[str, None] = {}
    folders, passed_over = [], 0
    for text in inputs:
        if text == LIST:
            files |= dict.fromkeys(_absolute(line) for line in listed.read().splitlines() if line)
            continue
        for path in _expand(text):
            if not is_folder(path):
                files[_absolute(path)] = None
                continue
            folders.append(path)
            for file in _walk(path, without):
                if file.lower().endswith(SUFFIXES):
                    files[file] = None
                else:
                    passed_over += 1
    return Inputs(list(files), folders, passed_over)


class Watch:
    """Finds new picture files in folders. A file is taken when its size stops changing."""

    def __init__(self, folders: Sequence[Path], known: Iterable[str], *, without: Path) -> None:
        """Takes the folders, files to pass over, and a folder to pass over."""
        self._folders, self._known, self._without = folders, set(known), without
        self._sizes: dict[str, int] = {}

    def poll(self) -> list[str]:
        """Returns the absolute paths of new files whose size is that of the last call.

        An empty file is not taken: its first bytes may be still to come.
        """
        sizes = {}
        for folder in self._folders:
            for file in _walk(folder, self._without):
                if file not in self._known and file.lower().endswith(SUFFIXES):
                    try:
                        sizes[file] = os.stat(file).st_size
                    except OSError:  # moved away meanwhile
                        continue
        ready = [file for file, size in sizes.items() if size and self._sizes.get(file) == size]
        self._known.update(ready)
        self._sizes = sizes
        return ready


def _expand(text: str) -> list[Path]:
    path = user_path(text)
    if os.path.lexists(path):
        return [path]
    found = sorted(glob.glob(os.fspath(path), recursive=True))
    if not found:
        raise DataError(f"{text}: no such file or folder; give pictures, folders or globs")
    return [Path(one) for one in found]


def _walk(folder: Path, without: Path) -> Iterator[str]:
    """Yields the absolute paths of a folder's files in the order of their names."""
    left_out = os.path.realpath(without)
    for here, inner, names in os.walk(os.path.abspath(folder)):
        inner[:] = sorted(
            name
            for name in inner
            if not is_by_system(name) and os.path.realpath(os.path.join(here, name)) != left_out
        )
        yield from (os.path.join(here, name) for name in sorted(names) if not is_by_system(name))


def _absolute(path: str | Path) -> str:
    return os.path.abspath(user_path(path))
