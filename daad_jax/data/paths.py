"""Lists the folders and files of a data set without leaving its root. It opens no file."""

import os
import stat
import unicodedata
from pathlib import Path

from daad_jax.config import DataConfig
from daad_jax.data import decode
from daad_jax.data.bad_files import BadFiles
from daad_jax.errors import BadFileError, ConfigError, DataError

_SUFFIXES = ", ".join(decode.SUFFIXES)
# Files and folders that systems and programs make by themselves, beside hidden ones.
_BY_SYSTEMS = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx"),
    *("@eadir", "$recycle.bin", "system volume information"),
}
_LEAVES = "leads out of data.root; copy the target there, or set data.follow_links=true"


def is_folder(path: Path) -> bool:
    """Whether a path is a folder or a link to a folder.

    Raises DataError if the path is too long, its links form a circle, or a parent folder may not be
    read.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return False
    except OSError as error:
        raise DataError(f"{path}: {decode.unreadable(error)}") from error


def root_folder(config: DataConfig) -> Path:
    """Returns `data.root`.

    Raises ConfigError if it is empty, and DataError if it is not a folder.
    """
    if not config.root:
        raise ConfigError(
            "data.root: give the folder that holds the categories, --config.data.root=FOLDER"
        )
    root = Path(config.root)
    if not is_folder(root):
        raise DataError(f"data.root: {root} is not a folder; give the folder with the images")
    return root


def list_folder(folder: Path) -> list[Path]:
    """Returns the entries of a folder, sorted by name, without those that systems make.

    These are hidden ones (``.name``) and others such as ``Thumbs.db`` and ``__MACOSX``.

    Raises DataError if the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: {decode.unreadable(error)}") from error
    return [folder / name for name in names if not is_by_system(name)]


def is_by_system(name: str) -> bool:
    """Whether a file or folder is hidden, or made by a system and not by a user."""
    return name.startswith(".") or name.casefold() in _BY_SYSTEMS


def same_name(name: str) -> str:
    """Returns the form in which names are compared: composed Unicode without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def find(folder: Path, *names: str) -> Path:
    """Returns a path under a folder whose parts have the same names as those given.

    A part that is there as it is given is preferred. One that is not there is returned as given.
    """
    for name in names:
        exact = folder / name
        if not os.path.lexists(exact) and is_folder(folder):
            same = [e for e in list_folder(folder) if same_name(e.name) == same_name(name)]
            exact = same[0] if same else exact
        folder = exact
    return folder


class Tree:
    """The folders and files of one category under the data root. Unusable files go to `bad`."""

    def __init__(self, config: DataConfig, bad: BadFiles) -> None:
        """Takes `root` and `follow_links` from a config.

        Raises ConfigError if the root is empty, and DataError if it is not a folder.
        """
        self.root, self.bad = root_folder(config), bad
        self._real_root, self._follow = os.path.realpath(self.root), config.follow_links

    def list_folders(self, folder: Path) -> list[Path]:
        """Returns the folders in a folder, and links to folders, sorted by name.

        Raises DataError if a folder cannot be read, or a link is broken or leads out of the root.
        """
        self.check_folder(folder)
        folders = [entry for entry in list_folder(folder) if is_folder(entry) or _is_broken(entry)]
        for entry in folders:
            self.check_folder(entry)
        return folders

    def list_images(self, folder: Path) -> list[Path]:
        """Returns the image files of a folder, sorted by name, without those in its folders.

        Files that are not images are added to `bad`.

        Raises DataError if the folder cannot be read, leads out of the root, or holds no file.
        """
        self.check_folder(folder)
        entries = list_folder(folder)
        files = [entry for entry in entries if not os.path.isdir(entry)]
        if not files:
            inner = f", not into folders such as {entries[0].name!r}" if entries else ""
            raise DataError(f"{folder}: empty; put images there ({_SUFFIXES}){inner}")
        usable = []
        for file in files:
            with self.bad.collecting():
                if file.suffix.lower() not in decode.SUFFIXES:
                    reason = f"is not an image ({_SUFFIXES}); move it elsewhere"
                    raise BadFileError(str(file), reason)
                self.check_file(file)
                usable.append(file)
        return usable

    def check_folder(self, folder: Path) -> None:
        """Checks that a folder exists and does not lead out of the root.

        Raises DataError if the check fails.
        """
        try:
            folder.stat()
        except OSError as error:
            raise DataError(f"{folder}: {decode.unreadable(error)}") from error
        if self._leaves(folder):
            raise DataError(f"{folder}: {_LEAVES}")

    def check_file(self, file: Path) -> None:
        """Checks that a file is a regular file and does not lead out of the root.

        Raises BadFileError if the check fails.
        """
        try:
            mode, is_link = file.stat().st_mode, file.is_symlink()
        except OSError as error:
            raise BadFileError(str(file), decode.unreadable(error)) from error
        if not stat.S_ISREG(mode):
            raise BadFileError(str(file), decode.NOT_REGULAR)
        if is_link and self._leaves(file):
            raise BadFileError(str(file), _LEAVES)

    def _leaves(self, path: Path) -> bool:
        real = Path(os.path.realpath(path))
        return not self._follow and not real.is_relative_to(self._real_root)


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not os.path.exists(path)
