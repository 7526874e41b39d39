"""One process at a time in a workdir: a lock that the system releases when its holder dies."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from daad_jax.errors import CheckpointError, warn

try:
    import fcntl
except ImportError:  # Windows has none.
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


class _Held(threading.local):
    def __init__(self) -> None:
        self.files: set[Path] = set()


_held = _Held()


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Holds a workdir, made if it is missing; within a thread, holds may be nested.

    The file ``.lock`` stays behind and means nothing by itself. Where files cannot be locked, a
    warning is printed instead.

    Args:
        workdir: the run's folder.

    Raises:
        CheckpointError: at once, if another process or thread holds it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir.resolve() / LOCK_FILE
    if path in _held.files:
        yield
        return
    with path.open("a") as file:
        _lock(file, workdir)
        _held.files.add(path)
        try:
            yield
        finally:
            _held.files.remove(path)


def check_free(workdir: Path) -> None:
    """Checks that nobody holds a workdir; one that does not exist is free.

    Raises:
        CheckpointError: if somebody does.
    """
    if (workdir / LOCK_FILE).exists():
        with hold(workdir):
            pass


def wait_until_free(workdir: Path) -> None:
    """Waits until nobody holds a workdir."""
    while True:
        try:
            return check_free(workdir)
        except CheckpointError:
            time.sleep(0.2)


def _lock(file: IO[str], workdir: Path) -> None:
    try:
        if fcntl is None:
            raise OSError("no fcntl")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(
            f"{workdir}: another train.py, eval.py or grid is at work there; wait for its end or "
            "choose another --workdir"
        ) from error
    except OSError as error:
        warn(
            f"{workdir}: files cannot be locked there ({error.strerror or error}); see to it "
            "that nothing else trains or evaluates there meanwhile"
        )
