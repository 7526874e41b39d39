"""Files of one JSON object for a step in each line, and the times of a run."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from daad_jax.errors import SaveError, warn

TIMINGS_FILE = "timings.jsonl"
# Waiting is worth a line when it takes this share of the time, and so many seconds.
MUCH_SHARE = 0.2
MUCH_SECONDS = 5.0


def reopen(path: Path, step: int) -> TextIO:
    """Opens a file to append to; lines of steps after `step`, which will be made again, go.

    Raises:
        SaveError: if it cannot be written.
    """
    with writing(path):
        if path.exists():
            lines = read_lines(path)
            cut_short = bool(lines) and line_step(lines[-1]) == math.inf
            damaged = [line_step(line) for line in lines].count(math.inf) - cut_short
            if damaged:
                warn(f"{path}: {damaged} damaged lines are left out")
            kept = [f"{line}\n" for line in lines if line_step(line) <= step]
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text("".join(kept))
            os.replace(partial, path)
        return path.open("a")


def read_lines(path: Path) -> list[str]:
    """The lines of a file; bytes that are not UTF-8 make theirs one that cannot be read."""
    return path.read_bytes().decode(errors="replace").splitlines()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names a file that is written where the system, on a full disk for example, does not.

    Raises:
        SaveError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"{path}: cannot be written ({error.strerror or error}); mend that, and the same "
            "command goes on from the last checkpoint"
        ) from error


def line_step(line: str) -> float:
    """The step of a line; infinite if a crash cut it short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class Timings:
    """``timings.jsonl``: a line for the steps since the line before it, or since the start.

    Unlike metrics they differ from one run to the next, so they stand apart.
    """

    def __init__(self, folder: Path, batch_size: int, step: int) -> None:
        """Opens the file of a run that stands at `step`; the first interval begins."""
        self._batch_size, self._step = batch_size, step
        self._path = folder / TIMINGS_FILE
        self._file = reopen(self._path, step)
        self._since, self._waited = time.monotonic(), 0.0
        self._laps: list[tuple[float, float]] = []

    def close(self) -> None:
        """Closes the file."""
        with writing(self._path):
            self._file.close()

    def wait(self, seconds: float) -> None:
        """Adds to what the interval waited for data."""
        self._waited += seconds

    def lap(self, step: int) -> dict[str, float]:
        """Ends the interval with a step that the devices have finished, and begins the next.

        Returns:
            ``seconds``, ``data_seconds`` (of them, those in which the devices waited for a batch)
            and ``images_per_second``, as they are written.
        """
        now = time.monotonic()
        seconds, waited = max(now - self._since, 1e-9), self._waited
        times = {
            "seconds": seconds,
            "data_seconds": waited,
            "images_per_second": (step - self._step) * self._batch_size / seconds,
        }
        with writing(self._path):
            self._file.write(json.dumps({"step": step, **times}) + "\n")
            self._file.flush()
        self._laps.append((seconds, waited))
        self._step, self._since, self._waited = step, now, 0.0
        return times

    def advice(self) -> str | None:
        """A line for people if much of the time after the first interval was waited for data."""
        laps = [(0.0, 0.0), *self._laps[1:]]
        seconds, waited = (math.fsum(column) for column in zip(*laps, strict=True))
        if waited <= max(MUCH_SHARE * seconds, MUCH_SECONDS):
            return None
        return (
            f"{waited / seconds:.0%} of the training time was waited for data (timings.jsonl); set "
            "data.on_device=yes if the images fit the device, raise data.memory_limit_mb so that "
            "they stay in memory, or put data.cache_dir on a faster disk"
        )
