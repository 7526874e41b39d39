"""How far a run is: a bar on a terminal, now and then a line in a log."""

import datetime
import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from daad_jax.errors import printable
from daad_jax.runtime import processes

FIRST_SECONDS, SECONDS = 10.0, 30.0  # until the first line of a log, and between lines
_SHOWN = {"rec": "loss/rec", "D(x)": "discriminator/real", "D(x_hat)": "discriminator/fake"}


class Progress:
    """Shows the progress of training on stderr, as a context manager.

    On a terminal it is a bar. Anything else gets plain ASCII lines from the first process.
    """

    def __init__(self, category: str, steps: range, batch_size: int) -> None:
        """Takes the updates to make, counted from 0, and the images of each."""
        self._category, self._end, self._batch_size = printable(category), steps.stop, batch_size
        shown = {"total": steps.stop, "initial": steps.start, "desc": self._category}
        self._bar = tqdm(**shown, unit="step", disable=None, file=sys.stderr)
        self._logs = self._bar.disable and processes.is_first()
        self._since, self._shown = time.monotonic(), steps.start
        self._wait = FIRST_SECONDS

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def due(self) -> bool:
        """Counts one update. Returns whether `show` would print a line now."""
        self._bar.update()
        return bool(self._logs) and time.monotonic() - self._since >= self._wait

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the metrics of the last update that were read; prints a line if one is due."""
        losses = [f"{name} {metrics[key]:.4g}" for name, key in _SHOWN.items() if key in metrics]
        if not self._logs:
            rate = self._bar.format_dict.get("rate") or 0.0
            shown = [*losses, f"{rate * self._batch_size:.0f} images/s"]
            self._bar.set_postfix_str(", ".join(shown), refresh=False)
            return
        now = time.monotonic()
        if now - self._since < self._wait:
            return
        rate = max(step - self._shown, 1) / (now - self._since)
        left = datetime.timedelta(seconds=round((self._end - step) / rate))
        shown = [*losses, f"{rate * self._batch_size:.0f} images/s", f"{left} left"]
        name = f"{self._category}: " if self._category else ""
        line = f"{name}step {step} of {self._end}, {', '.join(shown)}"
        print(line.encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)
        self._since, self._shown, self._wait = now, step, SECONDS
