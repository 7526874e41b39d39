"""The metrics of a run: every step is checked, some are written to the run's folder."""

import itertools
import json
import math
from pathlib import Path

import jax
import numpy as np

from daad_jax.errors import NonFiniteError, warn
from daad_jax.train.health import Finiteness, HealthCheck
from daad_jax.workdir import logs
from daad_jax.workdir.tensorboard import ScalarWriter

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class MetricsLog:
    """Checks the metrics of every step and writes those of every `every`-th step.

    Metrics stay on the device until `flush`, so that logging does not delay the steps. The files
    are ``metrics.jsonl``, ``timings.jsonl``, and ``tensorboard/`` with the numbers of both. A
    context manager that closes them.
    """

    def __init__(
        self, folder: Path | None, step: int, *, every: int, batch_size: int, health: HealthCheck
    ) -> None:
        """Opens the files of a run; lines of steps after `step`, which are made again, are removed.

        Args:
            folder: the run's folder; None writes nothing.
            step: number of updates that the run has made.
            every: number of steps between lines of ``metrics.jsonl``.
            batch_size: images per step.
            health: receives the metrics of every step.
        """
        self._every, self._health = every, health
        self._pending: list[tuple[int, dict[str, jax.Array], Finiteness]] = []
        self._newest: dict[str, float] = {}
        self._files = None if folder is None else _Files(folder, step, batch_size)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._files is not None:
            self._files.close()

    def add(self, step: int, metrics: dict[str, jax.Array], finite: Finiteness) -> None:
        """Takes the results of a step, counted from 1; they may still be being computed."""
        self._pending.append((step, metrics, finite))

    def wait(self, seconds: float) -> None:
        """Adds time that the devices waited for data to the current interval of the timings."""
        if self._files is not None:
            self._files.timings.wait(seconds)

    def flush(self, *, lap: bool = False) -> dict[str, float]:
        """Checks all steps since the last call and writes those that are due.

        Args:
            lap: whether an interval of the timings ends here.

        Returns:
            The metrics of the newest step.

        Raises:
            NonFiniteError: for the first step with a tensor or metric that is not finite, naming
                the first of them; the metrics of that step are written first.
            SaveError: if a file cannot be written.
        """
        fetched: list[tuple[int, dict[str, jax.Array], Finiteness]] = jax.device_get(self._pending)
        self._pending.clear()
        last = fetched[-1][0] if fetched else 0
        times = self._files.timings.lap(last) if lap and self._files is not None else {}
        for step, metrics, finite in fetched:
            values = {name: float(value) for name, value in metrics.items()}
            offender = finite.first_offender() or next(
                (name for name, value in values.items() if not math.isfinite(value)), None
            )
            if self._files is not None and (offender or step % self._every == 0):
                self._files.write(step, values, times if step + self._every > last else {})
            if offender:
                raise NonFiniteError(
                    f"step {step}: {offender} is not finite; training stopped and this step is not "
                    "saved. Lower train.learning_rate or check the images"
                )
            self._health.add(step, values)
            self._newest = values
        return self._newest

    def sync(self) -> None:
        """Writes buffered events, so that no checkpoint of a killed run is ahead of its logs."""
        if self._files is not None:
            self._files.sync()

    def warn_of_slow_data(self) -> None:
        """Warns if the devices waited long for data."""
        advice = None if self._files is None else self._files.timings.advice()
        if advice is not None:
            warn(advice)


class _Files:
    """``metrics.jsonl``, ``timings.jsonl`` and ``tensorboard/`` of a run's folder."""

    def __init__(self, folder: Path, step: int, batch_size: int) -> None:
        self._path, self._events_path = folder / METRICS_FILE, folder / TENSORBOARD
        self._file = logs.reopen(self._path, step)
        self.timings = logs.Timings(folder, batch_size, step)
        with logs.writing(self._events_path):
            self._events = ScalarWriter(self._events_path, step)

    def write(self, step: int, values: dict[str, float], times: dict[str, float]) -> None:
        # JSON has no NaN and no infinity; they are written as strings.
        line = {
            name: value if math.isfinite(value) else str(value) for name, value in values.items()
        }
        with logs.writing(self._path):
            self._file.write(json.dumps({"step": step, **line}) + "\n")
            self._file.flush()
        with logs.writing(self._events_path):
            times = {f"time/{name}": value for name, value in times.items()}
            self._events.write(step, values | times)

    def sync(self) -> None:
        with logs.writing(self._events_path):
            self._events.flush()

    def close(self) -> None:
        with logs.writing(self._path):
            self._file.close()
        self.timings.close()
        with logs.writing(self._events_path):
            self._events.close()


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """Reads the ``metrics.jsonl`` of a run as columns.

    Args:
        folder: the run's folder.

    Returns:
        ``step`` and every metric, float64 ``(lines,)``; NaN where a line lacks a metric or it was
        not finite. Empty if there is no file. Damaged lines are left out.
    """
    try:
        lines = logs.read_lines(folder / METRICS_FILE)
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in lines if math.isfinite(logs.line_step(line))]
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return {name: np.array([float(row.get(name, "nan")) for row in rows]) for name in names}
