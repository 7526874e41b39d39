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
    are ``metrics.jsonl``, ``timings.jsonl``, and ``tensorboard/`` with the numbers of both. The
    log is a context manager that closes its files.
    """

    def __init__(
        self, folder: Path | None, step: int, *, every: int, batch_size: int, health: HealthCheck
    ) -> None:
        """Opens the files in the run's folder; without a folder nothing is written.

        `step` is the number of updates made so far. Lines of later steps, which will be repeated,
        are removed. `health` receives the metrics of every step.
        """
        self._every, self._health, self._timings = every, health, None
        self._pending: list[tuple[int, dict[str, jax.Array], Finiteness]] = []
        self._newest: dict[str, float] = {}
        if folder is not None:
            self._path, self._events_path = folder / METRICS_FILE, folder / TENSORBOARD
            self._file = logs.reopen(self._path, step)
            self._timings = logs.Timings(folder, batch_size, step)
            with logs.writing(self._events_path):
                self._events = ScalarWriter(self._events_path, step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._timings is not None:
            with logs.writing(self._path):
                self._file.close()
            self._timings.close()
            with logs.writing(self._events_path):
                self._events.close()

    def add(self, step: int, metrics: dict[str, jax.Array], finite: Finiteness) -> None:
        """Takes the results of a step, counted from 1; the devices may still compute them."""
        self._pending.append((step, metrics, finite))

    def wait(self, seconds: float) -> None:
        """Adds seconds that the devices waited for data to the current interval of the timings."""
        if self._timings is not None:
            self._timings.wait(seconds)

    def flush(self, *, lap: bool = False) -> dict[str, float]:
        """Checks all steps since the last call, writes those that are due, returns the newest.

        `lap` ends an interval of the timings. Raises NonFiniteError for the first step with a
        tensor or metric that is not finite, after writing the metrics of that step; the message
        names the first such tensor. Raises SaveError if a file cannot be written.
        """
        fetched: list[tuple[int, dict[str, jax.Array], Finiteness]] = jax.device_get(self._pending)
        self._pending.clear()
        last = fetched[-1][0] if fetched else 0
        times = self._timings.lap(last) if lap and self._timings is not None else {}
        for step, metrics, finite in fetched:
            values = {name: float(value) for name, value in metrics.items()}
            offender = finite.first_offender() or next(
                (name for name, value in values.items() if not math.isfinite(value)), None
            )
            if self._timings is not None and (offender or step % self._every == 0):
                self._write(step, values, times if step + self._every > last else {})
            if offender:
                raise NonFiniteError(
                    f"step {step}: {offender} is not finite; training stopped and this step is not "
                    "saved. Lower train.learning_rate or check the images"
                )
            self._health.add(step, values)
            self._newest = values
        return self._newest

    def sync(self) -> None:
        """Writes buffered events. Call it before a checkpoint, which must not be ahead of them."""
        if self._timings is not None:
            with logs.writing(self._events_path):
                self._events.flush()

    def warn_of_slow_data(self) -> None:
        """Warns if the devices waited for data too long."""
        advice = None if self._timings is None else self._timings.advice()
        if advice is not None:
            warn(advice)

    def _write(self, step: int, values: dict[str, float], times: dict[str, float]) -> None:
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


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """Reads the ``metrics.jsonl`` of a run as columns.

    Returns ``step`` and every metric by name as float64 ``(lines,)``; empty if there is no file. A
    metric is NaN where a line lacks it. Damaged lines are left out.
    """
    try:
        lines = logs.read_lines(folder / METRICS_FILE)
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in lines if math.isfinite(logs.line_step(line))]
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return {name: np.array([float(row.get(name, "nan")) for row in rows]) for name in names}
