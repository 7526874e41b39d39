"""The manifest of a checkpoint: size and checksum of each file, to detect damage."""

import functools
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from daad_jax.errors import CheckpointError
from daad_jax.runtime import files

MANIFEST_FILE = "manifest.json"
FORMAT = 1


class DamagedError(Exception):
    """The files of a checkpoint are not those that were saved. The message says which differs."""


def write(folder: Path) -> None:
    """Writes the manifest of a complete checkpoint into its folder."""
    path = folder / MANIFEST_FILE
    found = sorted(file for file in folder.rglob("*") if file.is_file() and file != path)
    described = {file.relative_to(folder).as_posix(): _describe(file) for file in found}
    files.write_json(path, {"format": FORMAT, "files": described})


def check(folder: Path) -> bool:
    """Compares the files of a checkpoint with its manifest.

    Returns True if all files match, and False if there is no manifest to compare with. Raises
    DamagedError, which names the first file that is missing or differs, and CheckpointError if a
    newer version of daad_jax wrote the checkpoint.
    """
    try:
        values = json.loads((folder / MANIFEST_FILE).read_text())
        number = int(values["format"])
        if number > FORMAT:
            raise CheckpointError(
                f"{folder / MANIFEST_FILE}: has format {number}, but this version of daad_jax "
                f"reads formats up to {FORMAT}; update daad_jax"
            )
        listed = values["files"].items()
        expected = {name: (int(file["bytes"]), str(file["blake2b"])) for name, file in listed}
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{MANIFEST_FILE} cannot be read") from error
    for name, (size, checksum) in expected.items():
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise DamagedError(f"{name} points outside the checkpoint")
        _check_file(folder / name, name, size, checksum)
    return True


def _check_file(path: Path, name: str, size: int, checksum: str) -> None:
    try:
        # Reading a device or a pipe may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DamagedError(f"{name} is not a regular file")
        found = _describe(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{name} is missing") from error
    except OSError as error:
        raise DamagedError(f"{name} cannot be read ({error.strerror})") from error
    if found["bytes"] != size:
        raise DamagedError(f"{name} has {found['bytes']} bytes instead of {size}")
    if found["blake2b"] != checksum:
        raise DamagedError(f"{name} was changed after it was saved")


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=16))
        return {"bytes": file.tell(), "blake2b": digest.hexdigest()}
