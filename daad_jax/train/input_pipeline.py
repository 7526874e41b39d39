"""The batches of a run: gathered on the devices, or read ahead by a thread."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from daad_jax.data.tiles import Tiles
from daad_jax.errors import ConfigError
from daad_jax.runtime import processes, sharding
from daad_jax.train.batches import BatchOrder
from daad_jax.train.program import Program, available_memory

_AHEAD = 2  # batches that the thread reads in advance
_POLL_SECONDS = 1e-3
_GIB = 1 << 30


Take = Callable[[jax.Array], tuple[jax.Array, float]]
"""Returns the next batch and the seconds for which the devices waited for it.

The batch is uint8 ``(B, H, W, C)``, split over the mesh. The argument is a result of the running
update, which shows whether the devices still work."""


class BatchSource(NamedTuple):
    """Where batches come from.

    `read` maps an update, counted from 0, to its batch: uint8 ``(B, H, W, C)``, split over the
    mesh. With `on_devices` the devices hold the images, so no thread is needed.
    """

    read: Callable[[int], jax.Array]
    on_devices: bool


def open_source(
    choice: str, images: np.ndarray | Tiles, order: BatchOrder, program: Program
) -> BatchSource:
    """Decides where the training images, uint8 ``(n, H, W, C)``, are kept, and places them there.

    Of tiles, the pictures are kept, and batches are cut from them.

    `choice` is `data.on_device`. "yes" places the images on every device once and gathers batches
    there. "no" reads batches from the host's images, which may be memory-mapped. "auto" is "yes" on
    an accelerator if the images fit beside the train step, else "no". The batches are bitwise the
    same either way. Raises ConfigError if `choice` is "yes" and the images do not fit.
    """
    on_devices = _keep_on_devices(choice, images, program)
    make = _gathered if on_devices else _streamed
    return BatchSource(make(images, order, program.mesh), on_devices)


def _keep_on_devices(choice: str, images: np.ndarray | Tiles, program: Program) -> bool:
    mesh = program.mesh
    if choice == "no" or (choice == "auto" and mesh.devices.flat[0].platform == "cpu"):
        return False
    left = max(0, available_memory(mesh) - program.memory_bytes)
    if processes.all_processes(images.nbytes <= left):
        return True
    if choice == "auto":
        return False
    raise ConfigError(
        f"data.on_device: the {len(images)} training images need {images.nbytes / _GIB:.2f} GiB on "
        f"each device and {left / _GIB:.2f} GiB are left beside the train step; set it to 'auto'"
    )


@contextlib.contextmanager
def open_pipeline(source: BatchSource, steps: range) -> Iterator[Take]:
    """Yields a `Take` that returns the batches of the updates `steps`, counted from 0, in order.

    A thread reads batches from the host ahead while the devices work. It ends with the context.
    """
    if source.on_devices:
        upcoming = iter(steps)
        yield lambda running: (source.read(next(upcoming)), 0.0)
        return
    with concurrent.futures.ThreadPoolExecutor(1, "daad_jax-input") as pool:

        def read(step: int) -> jax.Array:
            return jax.block_until_ready(source.read(step))

        batches = (pool.submit(read, step) for step in steps)
        pending = collections.deque(itertools.islice(batches, _AHEAD))

        def take(running: jax.Array) -> tuple[jax.Array, float]:
            batch = pending.popleft()
            waited = _wait(batch, running)
            pending.extend(itertools.islice(batches, 1))
            return batch.result(), waited

        try:
            yield take
        finally:
            pool.shutdown(cancel_futures=True)


def _streamed(
    images: np.ndarray | Tiles, order: BatchOrder, mesh: Mesh
) -> Callable[[int], jax.Array]:
    """Reads batches from the host's images; each process reads the share of its own devices."""

    def read(step: int) -> jax.Array:
        indices = order.indices(step)
        shape = (len(indices), *images.shape[1:])
        return sharding.place_batch(shape, lambda rows: images[indices[rows]], mesh)

    return read


def _gathered(
    images: np.ndarray | Tiles, order: BatchOrder, mesh: Mesh
) -> Callable[[int], jax.Array]:
    """Places the images whole on every device, and gathers batches there."""
    held = sharding.place_whole(images.images if isinstance(images, Tiles) else images, mesh)
    gather = _gather(mesh, images.tiling.tile if isinstance(images, Tiles) else None)

    def read(step: int) -> jax.Array:
        indices = order.indices(step).astype(np.int32)
        places = images.places(indices) if isinstance(images, Tiles) else indices
        placed = sharding.place_batch(places.shape, places.__getitem__, mesh)
        return gather(held, placed)

    return read


@functools.lru_cache(maxsize=2)
def _gather(
    mesh: Mesh, tile: tuple[int, int] | None
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Compiled by itself: the train step must not depend on the number of images."""

    def gather(images: jax.Array, places: jax.Array) -> jax.Array:
        if tile is None:
            return jnp.take(images, places, axis=0, mode="clip")

        def cut(place: jax.Array) -> jax.Array:
            start = (*place, jnp.zeros((), place.dtype))
            return jax.lax.dynamic_slice(images, start, (1, *tile, images.shape[-1]))[0]

        return jax.vmap(cut)(places)

    split = sharding.batched(mesh)
    return jax.jit(gather, in_shardings=(sharding.replicated(mesh), split), out_shardings=split)


def _wait(batch: "concurrent.futures.Future[jax.Array]", running: jax.Array) -> float:
    """Waits for a batch; returns the seconds in which the devices had no work."""
    idle_since = None
    while not batch.done():
        if idle_since is None and running.is_ready():  # type: ignore[attr-defined]
            idle_since = time.monotonic()
        concurrent.futures.wait([batch], _POLL_SECONDS)
    return 0.0 if idle_since is None else time.monotonic() - idle_since
