"""Lists a data set's folders without leaving its root; nothing is opened here."""

import os
import stat
from pathlib import Path

from daad_jax.config import DataConfig
from daad_jax.data import images
from daad_jax.data.bad_files import BadFiles
from daad_jax.errors import BadFileError, DataError, printable

_SUFFIXES = ", ".join(images.SUFFIXES)
_LEAVES = "leads out of data.root; put a copy there, or set data.follow_links=true"


def is_folder(path: Path) -> bool:
    """Whether a path is a folder or a link to one.

    Raises:
        DataError: if that cannot be found out: the path is too long, its links lead in a circle,
            or a folder above it may not be read.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a null character
        return False
    except OSError as error:
        raise DataError(f"{path}: {images.unreadable(error)}") from error


def check_root(root: Path) -> None:
    """Checks that the data root is a folder.

    Raises:
        DataError: if not.
    """
    if not is_folder(root):
        raise DataError(f"data.root: {root} is not a folder; give the one that holds the images")


def list_folder(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without what begins with a dot.

    Raises:
        DataError: if the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: {images.unreadable(error)}") from error
    return [folder / name for name in names if not name.startswith(".")]


class Tree:
    """The folders and files of one category under the data root.

    Attributes:
        bad: what becomes of the files that cannot be used.
    """

    def __init__(self, config: DataConfig, bad: BadFiles) -> None:
        """Takes the root, and whether links may lead out of it, from a config.

        Raises:
            DataError: if the root is not a folder.
        """
        check_root(Path(config.root))
        self._root, self._follow = os.path.realpath(config.root), config.follow_links
        self._seen: dict[str, Path] = {}
        self.bad = bad

    def list_folders(self, folder: Path) -> list[Path]:
        """The folders in a folder, and links to folders, sorted.

        Raises:
            DataError: if a folder cannot be read, or a link leads nowhere or out of the root.
        """
        self.check_folder(folder)
        folders = [
            entry for entry in list_folder(folder) if is_folder(entry) or _leads_nowhere(entry)
        ]
        for entry in folders:
            self.check_folder(entry)
        return folders

    def list_images(self, folder: Path) -> list[Path]:
        """The image files of a folder, sorted; folders in it are passed over.

        Files that are no images go to `bad`.

        Raises:
            DataError: if the folder cannot be read, leads out of the root, or holds no file.
        """
        self.check_folder(folder)
        files = [entry for entry in list_folder(folder) if not os.path.isdir(entry)]
        if not files:
            raise DataError(f"{folder}: empty; put images there ({_SUFFIXES})")
        self._note_case(files)
        usable, real_folder = [], os.path.realpath(folder)
        for file in files:
            try:
                self._check_image(file, real_folder)
            except BadFileError as error:
                self.bad.add(error)
            else:
                usable.append(file)
        return usable

    def check_folder(self, folder: Path) -> None:
        """Checks that a folder is there and does not lead out of the root.

        Raises:
            DataError: if it does.
        """
        try:
            folder.stat()
        except OSError as error:
            raise DataError(f"{folder}: {images.unreadable(error)}") from error
        if self._leaves(folder):
            raise DataError(f"{folder}: {_LEAVES}")

    def check_file(self, file: Path) -> None:
        """Checks that a file is a regular one and does not lead out of the root.

        Raises:
            BadFileError: if not.
        """
        try:
            mode, is_link = file.stat().st_mode, file.is_symlink()
        except OSError as error:
            raise BadFileError(str(file), images.unreadable(error)) from error
        if not stat.S_ISREG(mode):
            raise BadFileError(str(file), images.NOT_REGULAR)
        if is_link and self._leaves(file):
            raise BadFileError(str(file), _LEAVES)

    def _check_image(self, file: Path, real_folder: str) -> None:
        if file.suffix.lower() not in images.SUFFIXES:
            raise BadFileError(str(file), f"is not an image ({_SUFFIXES}); move it elsewhere")
        self.check_file(file)
        is_link = file.is_symlink()
        real = os.path.realpath(file) if is_link else os.path.join(real_folder, file.name)
        first = self._seen.setdefault(real, file)
        if first is not file:
            raise BadFileError(str(file), f"is the same file as {first}; remove one of the links")

    def _leaves(self, path: Path) -> bool:
        return not self._follow and not Path(os.path.realpath(path)).is_relative_to(self._root)

    def _note_case(self, files: list[Path]) -> None:
        first: dict[str, Path] = {}
        for file in files:
            other = first.setdefault(file.name.casefold(), file)
            if other is not file:
                self.bad.notes.append(
                    f"{printable(str(file))}: differs from {printable(other.name)} only in case; "
                    "many file systems hold one of the two"
                )


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not os.path.exists(path)
