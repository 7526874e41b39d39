"""SIGTERM and SIGINT on the command line: the first asks the run to stop, the second kills it.

Python runs a signal handler only between two instructions of the main thread, so not while XLA
compiles. A second thread therefore receives the signal through `signal.set_wakeup_fd`: it prints a
message at once and can end the process.

Nothing here is active outside the context `listen`. The commands enter it; library functions do
not, so in a notebook Ctrl-C works as usual.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: re-run the same command to resume.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """The run stopped because of a signal. Not an `Exception`: no `except Exception` catches it."""


class _State:
    def __init__(self) -> None:
        self.listening = False
        self.received: str | None = None  # name of the first signal
        self.held = False
        self.interruptible = 0  # nesting depth


_state = _State()


@contextlib.contextmanager
def listen() -> Iterator[None]:
    """Handles SIGTERM and SIGINT until the context ends. Does nothing outside the main thread.

    The first signal takes effect at the next `check`, or at once within `interruptible`. The
    second signal ends the process immediately, with exit code 128 plus the signal's number.
    """
    if threading.current_thread() is not threading.main_thread() or _state.listening:
        yield
        return
    _state.listening = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_read_signals, args=(reader,), daemon=True)
    thread.start()
    old_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    old_handlers = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        if hasattr(signal, "pthread_sigmask"):
            # train.py and eval.py block the signals during their imports.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_fd)
        os.close(writer)
        thread.join()
        os.close(reader)
        _state.listening, _state.received = False, None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within this context the first signal raises `Interrupted` at once, wherever the code is.

    Do not use it around code that calls JAX: an exception raised just after a compilation crashes
    the process when it exits.
    """
    check()
    _state.interruptible += 1
    try:
        yield
    finally:
        _state.interruptible -= 1


def hold() -> None:
    """Disables `check` until `release`: this process must not stop while others wait for it."""
    _state.held = True


def release() -> None:
    """Makes the next `check` raise; called when all processes have agreed to stop."""
    _state.held = False
    _state.received = _state.received or "a signal to another process"


def requested() -> bool:
    """Returns whether a signal has asked the run to stop."""
    return _state.received is not None


def check(where: str = "") -> None:
    """Raises `Interrupted` if a signal has asked the run to stop and signals are not held.

    The message is the signal's name followed by `where`, which says how far the run got.
    """
    if _state.received is not None and not _state.held:
        raise Interrupted(_state.received + where)


def _handle(number: int, frame: FrameType | None) -> None:
    _receive(number)
    if _state.interruptible:
        check()


def _receive(number: int) -> None:
    if _state.received is None:
        _state.received = signal.Signals(number).name


def _read_signals(reader: int) -> None:
    """Reads signal numbers from the pipe until it is closed."""
    count = 0
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number not in SIGNALS:
                continue
            count += 1
            if count > 1:
                os._exit(128 + number)
            _receive(number)
            name = signal.Signals(number).name
            print(
                f"{name}: stopping at the next safe point; send it again to quit at once",
                file=sys.stderr,
                flush=True,
            )
