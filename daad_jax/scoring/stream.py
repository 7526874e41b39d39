"""Decodes any number of picture files beside the scoring, in bounded memory."""

import collections
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from daad_jax.errors import BadFileError
from daad_jax.scoring.detector import Detector

_THREADS = min(8, os.cpu_count() or 1)
_BATCHES = 3  # in memory at once


class Decoded(NamedTuple):
    """Some files in their order, with the pixels of those that could be decoded.

    `errors` has the reason why a file cannot be used, by its path. `pixels` is uint8
    ``(n, H, W, C)``, of the other files in order; None if there are none.
    """

    paths: list[str]
    errors: dict[str, str]
    pixels: np.ndarray | None

    @property
    def usable(self) -> list[str]:
        """The paths of the files that `pixels` is of."""
        return [path for path in self.paths if path not in self.errors]


def decode_files(detector: Detector, paths: Iterable[str]) -> Iterator[Decoded]:
    """Prepares files for a detector in threads, and yields batches of `score.batch_size`.

    Up to three batches are decoded ahead while the caller scores. Paths must differ.
    """
    size = detector.config.score.batch_size
    pool, left = ThreadPoolExecutor(_THREADS), iter(paths)
    waiting: collections.deque[tuple[str, Future[np.ndarray | str]]] = collections.deque()
    try:
        while True:
            for path in itertools.islice(left, _BATCHES * size - len(waiting)):
                waiting.append((path, pool.submit(_prepare, detector, path)))
            if not waiting:
                return
            batch = [waiting.popleft() for _ in range(min(size, len(waiting)))]
            yield _batch({path: future.result() for path, future in batch})
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(detector: Detector, path: str) -> np.ndarray | str:
    try:
        return detector.prepare(path)
    except BadFileError as error:
        return error.reason


def _batch(prepared: dict[str, np.ndarray | str]) -> Decoded:
    errors = {path: one for path, one in prepared.items() if isinstance(one, str)}
    pixels = [one for one in prepared.values() if not isinstance(one, str)]
    return Decoded(list(prepared), errors, np.stack(pixels) if pixels else None)
