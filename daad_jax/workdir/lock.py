"""A lock that lets one process at a time use a workdir.

The operating system releases the lock when its holder exits, however it exits.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from daad_jax.errors import InUseError, warn

try:
    import fcntl
except ImportError:  # not available on Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextlib.contextmanager
def hold(workdir: Path, name: str = LOCK_FILE, *, wait: bool = False) -> Iterator[None]:
    """Locks a workdir until the context ends, and creates it if it does not exist.

    The file of that name, ``.lock`` by default, stays afterwards. Only the lock on it counts. On
    file systems without locks this prints a warning and continues.

    If the workdir is already locked, this waits with `wait`, else raises InUseError.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / name).open("a") as file:
        _lock(file, workdir, wait)
        yield


def check_free(workdir: Path) -> None:
    """Checks that a workdir is not locked. A folder that does not exist is free.

    Raises InUseError if it is locked.
    """
    if (workdir / LOCK_FILE).exists():
        with hold(workdir):
            pass


def _lock(file: IO[str], workdir: Path, wait: bool) -> None:
    try:
        if fcntl is None:
            raise OSError("no fcntl")
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise InUseError(
            f"{workdir}: another process trains or evaluates there; wait until it ends or choose "
            "another --workdir"
        ) from error
    except OSError as error:
        warn(
            f"{workdir}: cannot lock files there ({error.strerror or error}); make sure that no "
            "other process trains or evaluates there"
        )
