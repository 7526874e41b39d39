"""How far `predict` is: a bar on a terminal, now and then a line in a log."""

import datetime
import sys
import time

from tqdm import tqdm

from daad_jax.train.progress import FIRST_SECONDS, SECONDS


class Counter:
    """Shows on stderr how many pictures are done, pictures per second and the time left."""

    def __init__(self, total: int | None) -> None:
        """Takes the number of pictures to do, or None if it is not known."""
        self._total, self._done = total, 0
        self._bar = tqdm(total=total, unit=" images", disable=None, file=sys.stderr)
        self._begin = self._since = time.monotonic()
        self._wait = FIRST_SECONDS

    def add(self, count: int) -> None:
        """Counts pictures; prints a line if there is no terminal and one is due."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now - self._since >= self._wait:
            self._since, self._wait = now, SECONDS
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """The line of a log, such as "1200 of 5000 pictures, 95.2 images/s, 0:00:40 left"."""
        rate = self._done / max(time.monotonic() - self._begin, 1e-9)
        if self._total is None or not self._done:
            return f"{self._done} pictures, {rate:.1f} images/s"
        left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
        return f"{self._done} of {self._total} pictures, {rate:.1f} images/s, {left} left"

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
