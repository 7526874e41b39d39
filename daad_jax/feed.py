"""The batches of a run: gathered on the devices, or read ahead by a thread."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from daad_jax import processes, sharding
from daad_jax.config import Config
from daad_jax.data import batches
from daad_jax.errors import ConfigError
from daad_jax.program import Program, available_memory

_AHEAD = 2  # batches that the thread reads before they are wanted
_LOOK_SECONDS = 1e-3
_GIB = 1 << 30


class Fed(NamedTuple):
    """What a dispatch gets.

    Attributes:
        steps: the numbers of its updates, from 0.
        batch: uint8 ``(B, H, W, C)``; for several steps ``(steps, B, H, W, C)``.
        waited: seconds that the devices had nothing to do for want of it.
    """

    steps: range
    batch: jax.Array
    waited: float


Take = Callable[[jax.Array], Fed]
"""Gives the next dispatch its batch; takes a result of the dispatch before it."""


def stays_on_devices(config: Config, images: np.ndarray, program: Program) -> bool:
    """Whether the training images are kept on each device.

    Args:
        config: whose `data.on_device` decides; "auto" is yes on an accelerator where they fit.
        images: uint8 ``(n, H, W, C)``.
        program: what else the devices have to hold.

    Raises:
        ConfigError: if they are to be and do not fit.
    """
    choice, mesh = config.data.on_device, program.mesh
    if choice == "no" or (choice == "auto" and mesh.devices.flat[0].platform == "cpu"):
        return False
    left = max(0, available_memory(mesh) - program.memory_bytes)
    if processes.everywhere(images.nbytes <= left):
        return True
    if choice == "auto":
        return False
    raise ConfigError(
        f"data.on_device: the {len(images)} training images need {images.nbytes / _GIB:.2f} GiB on "
        f"each device and {left / _GIB:.2f} GiB are left beside the train step; set it to 'auto'"
    )


@contextlib.contextmanager
def open_feed(
    config: Config, images: np.ndarray, mesh: Mesh, plan: Iterable[range], *, on_devices: bool
) -> Iterator[Take]:
    """Feeds the dispatches of a run; no thread is left when it is closed.

    The batches are bitwise the same either way.

    Args:
        config: of the run.
        images: uint8 ``(n, H, W, C)``, in memory or memory-mapped.
        mesh: the devices that train.
        plan: the steps of each dispatch, in order.
        on_devices: whether the images are placed on every device once and the batches gathered
            there, or a thread reads and places each batch while the devices work.

    Yields:
        What is called for each dispatch; it raises what reading the images raised.
    """
    steps = iter(plan)
    if on_devices:
        gather = gathered(config, images, mesh)
        yield lambda running: _fed(next(steps), gather)
        return
    read = streamed(config, images, mesh)
    with concurrent.futures.ThreadPoolExecutor(1, "daad_jax-feed") as pool:

        def begin(count: int) -> Iterator[tuple[range, concurrent.futures.Future[jax.Array]]]:
            for one in itertools.islice(steps, count):
                yield one, pool.submit(lambda one: jax.block_until_ready(read(one)), one)

        queue = collections.deque(begin(_AHEAD))

        def take(running: jax.Array) -> Fed:
            wanted, batch = queue.popleft()
            waited = _wait(batch, running)
            queue.extend(begin(1))
            return Fed(wanted, batch.result(), waited)

        try:
            yield take
        finally:
            pool.shutdown(cancel_futures=True)


def streamed(config: Config, images: np.ndarray, mesh: Mesh) -> Callable[[range], jax.Array]:
    """From steps to their batch, see `Fed`, split over the mesh; read from the host's images."""

    def read(steps: range) -> jax.Array:
        indices = _indices(config, steps, len(images))
        shape = (*indices.shape, *images.shape[1:])
        axis = indices.ndim - 1
        return sharding.place_batch(shape, lambda rows: images[indices[..., rows]], mesh, axis)

    return read


def gathered(config: Config, images: np.ndarray, mesh: Mesh) -> Callable[[range], jax.Array]:
    """As `streamed`, from images that are placed on every device now, whole."""
    held = sharding.place_whole(images, mesh)

    def gather(steps: range) -> jax.Array:
        indices = _indices(config, steps, len(images)).astype(np.int32)
        axis = indices.ndim - 1
        placed = sharding.place_batch(indices.shape, lambda rows: indices[..., rows], mesh, axis)
        return _gather(mesh, axis)(held, placed)

    return gather


@functools.lru_cache(maxsize=4)
def _gather(mesh: Mesh, axis: int) -> jax.stages.Wrapped:
    """Apart from the step: the number of images is a shape, and the step is not to depend on it."""

    def gather(images: jax.Array, indices: jax.Array) -> jax.Array:
        return jnp.take(images, indices, axis=0, mode="clip")

    split = sharding.batched(mesh, axis)
    return jax.jit(gather, in_shardings=(sharding.replicated(mesh), split), out_shardings=split)


def _indices(config: Config, steps: range, count: int) -> np.ndarray:
    size = config.train.batch_size
    rows = [batches.batch_indices(config.seed, step, count, size) for step in steps]
    return rows[0] if len(rows) == 1 else np.stack(rows)


def _fed(steps: range, source: Callable[[range], jax.Array]) -> Fed:
    return Fed(steps, source(steps), 0.0)


def _wait(batch: "concurrent.futures.Future[jax.Array]", running: jax.Array) -> float:
    """Waits; only seconds in which the devices have finished what they were given count."""
    idle_since = None
    while not batch.done():
        if idle_since is None and running.is_ready():  # type: ignore[attr-defined]
            idle_since = time.monotonic()
        concurrent.futures.wait([batch], _LOOK_SECONDS)
    return 0.0 if idle_since is None else time.monotonic() - idle_since
