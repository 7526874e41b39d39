"""From the pictures of a request to the rows of its answer, by the model of the moment."""

import asyncio
import base64
import functools
import io
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from fastapi import HTTPException
from PIL import Image
from pydantic import BaseModel, Field

from daad_jax.errors import BadFileError, UserError
from daad_jax.serve.batching import Batcher
from daad_jax.serve.bodies import Busy, Sent
from daad_jax.serve.limits import THREADS, Limits
from daad_jax.serve.metrics import Metrics
from daad_jax.serve.model import Model, Scored, TooLargeError, load


class Row(BaseModel):
    """What was found in one picture: the columns of ``predictions.csv``, and the map if asked for.

    `score`, and with it all but `path` and `error`, is null if the picture cannot be used;
    `calibrated_score`, `p_value` and `defective` are null without a threshold.
    """

    path: str = Field(description="The name that was sent with the picture.")
    score: float | None = Field(default=None, description="The score that decides.")
    calibrated_score: float | None = Field(
        default=None,
        description="The same on a scale where good pictures have 0 and the threshold 1.",
    )
    p_value: float | None = Field(
        default=None, description="How often a good picture has a score this high."
    )
    defective: bool | None = Field(
        default=None, description="Whether the score reaches the threshold."
    )
    error: str | None = Field(default=None, description="Why the picture cannot be used.")
    map: str | None = Field(
        default=None,
        description="With map=true: a grey PNG of 16 bits, as a data URL.",
    )
    map_maximum: float | None = Field(
        default=None, description="The map's value where the PNG has 65535."
    )


class Answer(NamedTuple):
    """The rows of a request in its order, the model that answered, and the HTTP status."""

    rows: list[Row]
    model: Model
    status: int


class Service:
    """The model, the threads that decode and score, and what is counted."""

    def __init__(self, model: Model, limits: Limits) -> None:
        """Attributes are what `daad_jax.serve.app` needs of it.

        `draining` is set when the service stops.
        """
        self.model, self.limits, self.metrics = model, limits, Metrics()
        self.draining = False
        self._pictures = 0
        self._batcher = Batcher(self.metrics.batch)
        self._threads = ThreadPoolExecutor(THREADS, "decode")
        self._loading = ThreadPoolExecutor(1, "load")
        self._took(model)

    @contextmanager
    def _admit(self, count: int) -> Iterator[None]:
        if self._pictures + count > self.limits.queue:
            raise Busy(f"{self._pictures} pictures are waiting; send it again later")
        self._pictures += count
        self.metrics.in_progress.set(self._pictures)
        try:
            yield
        finally:
            self._pictures -= count
            self.metrics.in_progress.set(self._pictures)

    async def predict(self, sent: list[Sent], *, with_map: bool) -> Answer:
        """Scores the pictures of one request, all by the same model.

        The status is 200 if any picture could be used, else 413 or 422. Raises HTTPException: 503
        if too many pictures wait or it takes too long.
        """
        model = self.model
        with self._admit(len(sent)):
            try:
                async with asyncio.timeout(self.limits.seconds):
                    found = await asyncio.gather(
                        *(self._one(model, one, with_map=with_map) for one in sent)
                    )
            except TimeoutError as error:
                raise Busy(f"no answer within {self.limits.seconds:g} s") from error
        rows, errors = zip(*found, strict=True)
        if not all(errors):
            return Answer(list(rows), model, 200)
        too_large = any(isinstance(error, TooLargeError) for error in errors)
        return Answer(list(rows), model, 413 if too_large else 422)

    async def _one(
        self, model: Model, sent: Sent, *, with_map: bool
    ) -> tuple[Row, BadFileError | None]:
        loop, most = asyncio.get_running_loop(), self.limits.pixels
        try:
            prepared = await loop.run_in_executor(
                self._threads, model.prepare, sent.content, sent.name, most
            )
            scored = await self._batcher.score(model, prepared.pixels)
        except BadFileError as error:
            self.metrics.pictures.labels("unusable").inc()
            return Row(path=sent.name, error=error.reason), error
        except Exception as error:
            print(f"error: scoring failed: {error!r}", file=sys.stderr, flush=True)
            raise HTTPException(500, "scoring failed; the service's log says why") from error
        row = _row(sent.name, scored)
        if row.error is not None:
            self.metrics.pictures.labels("unusable").inc()
            return row, None
        if with_map:
            encode = functools.partial(_encode, scored.anomaly_map[prepared.box.region])
            row.map, row.map_maximum = await loop.run_in_executor(self._threads, encode)
        named = {True: "defective", False: "good", None: "undecided"}
        self.metrics.pictures.labels(named[row.defective]).inc()
        return row, None

    async def reload(self) -> None:
        """Loads the model's file again and takes it for new requests.

        Pictures that wait are scored by the model that they were prepared for. If the file cannot
        be used, a line says so and the model stays.
        """
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(self._loading, load, self.model.path)
        except (UserError, MemoryError) as error:
            self.metrics.loads.labels("failed").inc()
            print(f"error: {error}; the model before stays", file=sys.stderr, flush=True)
            return
        self.model = model
        self._took(model)
        print(f"loaded {model.path} ({model.hash})", flush=True)

    def _took(self, model: Model) -> None:
        self.metrics.loads.labels("loaded").inc()
        self.metrics.model.info({"hash": model.hash, "file": model.path.name})

    def close(self) -> None:
        """Ends the threads."""
        for pool in (self._threads, self._loading):
            pool.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()


def _row(name: str, scored: Scored) -> Row:
    if not math.isfinite(scored.decision_score):
        return Row(path=name, error="its score is not finite")
    return Row(
        path=name,
        score=scored.decision_score,
        calibrated_score=scored.calibrated_score,
        p_value=scored.p_value,
        defective=scored.defective,
    )


def _encode(values: np.ndarray) -> tuple[str, float]:
    """A map, float32 ``(H, W)``, as the data URL of a PNG, and what its 65535 stands for."""
    highest = max(float(values.max()), 1e-30)
    scaled = np.clip(np.rint(values / highest * 65535), 0, 65535).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(scaled).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", highest
