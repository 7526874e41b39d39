"""SIGTERM and SIGINT on the command line: the first asks the work to stop, the second ends it.

Python runs a signal's handler between two instructions of its main thread, so that it waits while
XLA compiles. A thread hears of the signal at once through `signal.set_wakeup_fd`, says so, and can
leave. Nothing here takes part unless `watch` is entered, which the commands do and the library's
functions do not: in a notebook, Ctrl-C stays what it is.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: the same command goes on
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """The work was asked to stop and has; no failure, so that no `except Exception` takes it."""


class _State:
    def __init__(self) -> None:
        self.watching = False
        self.received: str | None = None  # the first signal
        self.held = False
        self.anywhere = 0


_state = _State()


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Takes the signals until it is left; does nothing outside of the main thread.

    A first signal waits for the next `check`, or is raised at once within `anywhere`. A second one
    ends the process at once with 128 and the signal's number.
    """
    if threading.current_thread() is not threading.main_thread() or _state.watching:
        yield
        return
    _state.watching = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_listen, args=(reader,), daemon=True)
    thread.start()
    old_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    old = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # train.py keeps them waiting
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_fd)
        os.close(writer)
        thread.join()
        os.close(reader)
        _state.watching, _state.received = False, None


@contextlib.contextmanager
def anywhere() -> Iterator[None]:
    """Within it a first signal raises `Interrupted` wherever the main thread is.

    Not for code that calls JAX: an exception that arrives as a compilation returns crashes the
    process when it ends.
    """
    check()
    _state.anywhere += 1
    try:
        yield
    finally:
        _state.anywhere -= 1


def hold() -> None:
    """Lets no signal stop this process alone, from now until `release`: others wait for it."""
    _state.held = True


def release() -> None:
    """Stops at the next `check`, as all processes have agreed to."""
    _state.held = False
    _state.received = _state.received or "a signal to another process"


def requested() -> bool:
    """Whether a signal has asked the work to stop."""
    return _state.received is not None


def check(where: str = "") -> None:
    """Stops here if a signal asked for it.

    Args:
        where: what has been reached, for the message.

    Raises:
        Interrupted: if one did.
    """
    if _state.received is not None and not _state.held:
        raise Interrupted(_state.received + where)


def _handle(number: int, frame: FrameType | None) -> None:
    _receive(number)
    if _state.anywhere:
        check()


def _receive(number: int) -> None:
    if _state.received is None:
        _state.received = signal.Signals(number).name


def _listen(reader: int) -> None:
    """Reads the numbers of signals until the pipe is closed."""
    heard = 0
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number not in SIGNALS:
                continue
            heard += 1
            if heard > 1:
                os._exit(128 + number)
            _receive(number)
            name = signal.Signals(number).name
            print(
                f"{name}: finishing what runs; another signal ends it at once",
                file=sys.stderr,
                flush=True,
            )
