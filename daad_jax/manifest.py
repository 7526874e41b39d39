"""The manifest of a checkpoint: its files' sizes and checksums, by which damage is found."""

import functools
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from daad_jax import files
from daad_jax.errors import CheckpointError

MANIFEST_FILE = "manifest.json"
FORMAT = 1


class DamagedError(Exception):
    """A checkpoint is not what was saved; the message says what is wrong with it."""


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a file of JSON, whole or not at all."""
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n")


def write(folder: Path) -> None:
    """Writes the manifest of a complete checkpoint into its folder."""
    path = folder / MANIFEST_FILE
    found = sorted(file for file in folder.rglob("*") if file.is_file() and file != path)
    described = {file.relative_to(folder).as_posix(): _describe(file) for file in found}
    write_json(path, {"format": FORMAT, "files": described})


def check(folder: Path) -> bool:
    """Compares a checkpoint's files with its manifest.

    Returns:
        Whether there is a manifest; without one nothing is known.

    Raises:
        DamagedError: naming the first file that is missing or differs.
        CheckpointError: if a newer version wrote the checkpoint.
    """
    try:
        values = json.loads((folder / MANIFEST_FILE).read_text())
        number = int(values["format"])
        if number > FORMAT:
            raise CheckpointError(
                f"{folder / MANIFEST_FILE}: has format {number}, and this daad_jax knows formats "
                f"up to {FORMAT}; update daad_jax"
            )
        listed = values["files"].items()
        wanted = {name: (int(file["bytes"]), str(file["blake2b"])) for name, file in listed}
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{MANIFEST_FILE} cannot be read") from error
    for name, (size, checksum) in wanted.items():
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise DamagedError(f"{name} leads out of the checkpoint")
        _check_file(folder / name, name, size, checksum)
    return True


def _check_file(path: Path, name: str, size: int, checksum: str) -> None:
    try:
        # A device or a pipe never ends, so nothing else is read.
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
        raise DamagedError(f"{name} differs from what was saved")


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=16))
        return {"bytes": file.tell(), "blake2b": digest.hexdigest()}
