"""Scores the pictures of concurrent requests together."""

import asyncio
import collections
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from daad_jax.serve.model import Model, Scored


class _Waiting(NamedTuple):
    model: Model
    pixels: np.ndarray
    answer: asyncio.Future[Scored]


class Batcher:
    """A queue of prepared pictures and one thread that scores them.

    While a batch is scored, the next one gathers, so batches grow with the load and a lone picture
    never waits. Belongs to one event loop.
    """

    def __init__(self, measure: Callable[[int, float], None]) -> None:
        """Takes what is called after each batch with its size and the seconds it took."""
        self._measure = measure
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._thread = ThreadPoolExecutor(1, "score")
        self._runner: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many pictures wait."""
        return len(self._waiting)

    async def score(self, model: Model, pixels: np.ndarray) -> Scored:
        """Scores one picture, uint8 ``(H, W, C)`` as `model` prepared it.

        Raises what the model raises. A picture whose caller is cancelled is left out.
        """
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(model, pixels, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        """Scores until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next():
                start = time.perf_counter()
                try:
                    found = await loop.run_in_executor(self._thread, _score, batch)
                except Exception as error:
                    _answer(batch, error)
                else:
                    _answer(batch, found)
                self._measure(len(batch), time.perf_counter() - start)
        finally:
            self._runner = None

    def _next(self) -> list[_Waiting]:
        """The first pictures of one model, as many as one of its sizes; none if nothing waits."""
        kept = [one for one in self._waiting if not one.answer.done()]  # others have given up
        batch: list[_Waiting] = []
        if kept:
            model = kept[0].model
            same = sum(1 for _ in itertools.takewhile(lambda one: one.model is model, kept))
            # No batch is padded: what is left over begins the next one.
            size = max((size for size in model.batch_sizes if size <= same), default=same)
            batch, kept = kept[:size], kept[size:]
        self._waiting = collections.deque(kept)
        return batch

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _score(batch: list[_Waiting]) -> list[Scored]:
    return batch[0].model.score(np.stack([one.pixels for one in batch]))


def _answer(batch: list[_Waiting], found: list[Scored] | Exception) -> None:
    for at, one in enumerate(batch):
        if one.answer.done():
            continue
        if isinstance(found, Exception):
            one.answer.set_exception(found)
        else:
            one.answer.set_result(found[at])
