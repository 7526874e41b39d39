"""Logs in JSON lines: one JSON object with a "step" per line. Also the timings of a run."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from daad_jax.errors import SaveError, warn
from daad_jax.runtime import files

TIMINGS_FILE = "timings.jsonl"
# Waiting for data is reported when it takes both this share of the time and this many seconds.
WAIT_SHARE = 0.2
WAIT_SECONDS = 5.0


def reopen(path: Path, step: int) -> TextIO:
    """Opens a log to append to. Removes the lines of steps after `step`, which will run again.

    Damaged lines are removed as well. This prints a warning unless the only one is the last line,
    which a crash may cut short.

    Raises SaveError if the file cannot be written.
    """
    with writing(path):
        if path.exists():
            lines = read_lines(path)
            cut_short = bool(lines) and line_step(lines[-1]) == math.inf
            damaged = [line_step(line) for line in lines].count(math.inf) - cut_short
            if damaged:
                warn(f"{path}: removed {damaged} damaged lines")
            kept = [f"{line}\n" for line in lines if line_step(line) <= step]
            with files.replacing(path) as partial:
                partial.write_text("".join(kept), encoding="utf-8")
        return path.open("a", encoding="utf-8")


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file. Bytes that are not UTF-8 become replacement characters."""
    return path.read_bytes().decode(errors="replace").splitlines()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError in the context, such as a full disk, into a SaveError naming the file."""
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"{path}: cannot be written ({error.strerror or error}); fix the cause and re-run the "
            "same command to resume from the last checkpoint"
        ) from error


def line_step(line: str) -> float:
    """Returns the step of a line, or infinity if the line cannot be read."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class Timings:
    """``timings.jsonl`` with one line per interval, which covers the steps since the line before.

    Timings are separate from the metrics because they differ between runs.
    """

    def __init__(self, folder: Path, batch_size: int, step: int) -> None:
        """Opens the log of a run that has made `step` steps, and starts the first interval.

        `batch_size` is the number of images per step.
        """
        self._batch_size, self._step = batch_size, step
        self._path = folder / TIMINGS_FILE
        self._file = reopen(self._path, step)
        self._start, self._waited = time.monotonic(), 0.0
        self._intervals: list[tuple[float, float]] = []

    def close(self) -> None:
        """Closes the file."""
        with writing(self._path):
            self._file.close()

    def wait(self, seconds: float) -> None:
        """Adds time that the devices waited for data to the current interval."""
        self._waited += seconds

    def lap(self, step: int) -> dict[str, float]:
        """Ends the current interval at `step`, writes its line and starts the next one.

        Returns what is written: ``seconds``, ``data_seconds`` (the part of them that the devices
        waited for a batch) and ``images_per_second``.
        """
        now = time.monotonic()
        seconds, waited = max(now - self._start, 1e-9), self._waited
        times = {
            "seconds": seconds,
            "data_seconds": waited,
            "images_per_second": (step - self._step) * self._batch_size / seconds,
        }
        with writing(self._path):
            self._file.write(json.dumps({"step": step, **times}) + "\n")
            self._file.flush()
        self._intervals.append((seconds, waited))
        self._step, self._start, self._waited = step, now, 0.0
        return times

    def advice(self) -> str | None:
        """Returns a warning if data was slow, else None. The first interval does not count."""
        intervals = [(0.0, 0.0), *self._intervals[1:]]
        seconds, waited = (math.fsum(column) for column in zip(*intervals, strict=True))
        if waited <= max(WAIT_SHARE * seconds, WAIT_SECONDS):
            return None
        return (
            f"training waited for data {waited / seconds:.0%} of the time (timings.jsonl); set "
            "data.on_device=yes if the images fit on the device, raise data.memory_limit_mb so "
            "that they stay in memory, or put data.cache_dir on a faster disk"
        )
