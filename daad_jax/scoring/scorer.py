"""`Scorer`: runs trained networks over any number of images in batches of few sizes."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from daad_jax.addressing import MemoryRead, item_usage
from daad_jax.errors import NonFiniteError
from daad_jax.models.autoencoder import normalize_images, scale_memories
from daad_jax.models.blocks import group
from daad_jax.models.build import Networks
from daad_jax.models.memory import BlockMemory
from daad_jax.runtime import sharding, signals
from daad_jax.runtime.compiler import compiler_options
from daad_jax.scoring import scores
from daad_jax.scoring.scores import RawScores

Variables = tuple[Mapping[str, Any], Mapping[str, Any] | None]
"""The variables of the generator and of the discriminator, or None without one."""

_BUCKET_RATIO = 4


def score_images(
    networks: Networks, variables: Variables, images: jax.Array, blur: jax.Array
) -> dict[str, jax.Array]:
    """Scores one batch; pure, to be jitted or vmapped.

    Running statistics are used, so an image's scores do not depend on the rest of the batch.

    Args:
        networks: the modules.
        variables: their variables.
        images: ``(B, H, W, C)`` in [-1, 1].
        blur: ``(H, H)`` from `daad_jax.scoring.scores.blur_matrix`.

    Returns:
        ``reconstruction_score`` (B,), ``anomaly_map`` (B, H, W), ``reconstruction`` (B, H, W, C)
        and, with a discriminator, ``alignment_score`` (B,) and ``feature_map`` (B, h, w).
    """
    generator, discriminator = cast(Any, networks)
    reconstruction = generator.apply(variables[0], images, train=False).reconstruction
    result = {
        "reconstruction_score": scores.reconstruction_score(images, reconstruction),
        "anomaly_map": scores.anomaly_map(images, reconstruction, blur),
        "reconstruction": reconstruction,
    }
    if discriminator is not None:
        features, rebuilt = (
            discriminator.apply(variables[1], x, train=False).features
            for x in (images, reconstruction)
        )
        result["alignment_score"] = scores.alignment_score(features, rebuilt)
        result["feature_map"] = scores.feature_map(features, rebuilt)
    return result


class MemoryUse(NamedTuple):
    """How much the blocks of some images read one memory.

    Attributes:
        reads: ``(N,)``, the number of reads that gave an item a weight above zero.
        weight: ``(N,)``, the sum of an item's weights.
        blocks: the number of reads.
        active_items: sum over the reads of the number of items with a weight above zero.
        entropy: sum over the reads of the entropy of the weights, in nats.
        dead_reads: the number of reads whose weights are all zero.
    """

    reads: jax.Array
    weight: jax.Array
    blocks: jax.Array
    active_items: jax.Array
    entropy: jax.Array
    dead_reads: jax.Array


def memory_use(
    networks: Networks, variables: Variables, images: jax.Array, counted: jax.Array
) -> dict[str, MemoryUse]:
    """Sums up how one batch reads each memory; pure, to be jitted.

    Args:
        networks: the modules.
        variables: their variables.
        images: ``(B, H, W, C)`` in [-1, 1].
        counted: ``(B,)``, 1.0 for an image that counts and 0.0 for one that pads the batch.

    Returns:
        A `MemoryUse` for each scale with a memory.
    """
    generator = cast(Any, networks.generator)
    output = generator.apply(variables[0], images, train=False, return_weights=True)
    memories = scale_memories(networks.generator)
    return {scale: _use(memories[scale], read, counted) for scale, read in output.reads.items()}


def _use(memory: BlockMemory, read: MemoryRead, counted: jax.Array) -> MemoryUse:
    assert read.weights is not None
    grouped = group(read.weights, memory.rates, memory.groups)
    usage = jax.vmap(item_usage, (0, None))(grouped, counted)

    def total(values: jax.Array) -> jax.Array:
        return jnp.sum(values * counted[:, None])

    summary = read.summary
    return MemoryUse(
        usage.reads.reshape(-1),
        usage.weight.reshape(-1),
        total(jnp.ones_like(summary.dead)),
        total(summary.active_items),
        total(summary.entropy),
        total(summary.dead),
    )


class Scorer:
    """Scores uint8 images with trained networks.

    Images are scored in full batches. A call with fewer images uses the smallest of a few batch
    sizes that holds them, so that a single image is not padded to a full batch.

    Attributes:
        networks: the modules.
        variables: their variables.
        batch_sizes: the batch sizes, ascending; multiples of the number of devices.
    """

    def __init__(
        self,
        networks: Networks,
        variables: Variables,
        *,
        image_shape: tuple[int, int, int],
        map_sigma: float,
        batch_size: int,
        mesh: Mesh,
    ) -> None:
        """Takes the networks; nothing is compiled before the first images.

        Args:
            networks: the modules.
            variables: their variables, on the devices of the mesh.
            image_shape: ``(H, W, C)``.
            map_sigma: standard deviation of the smoothing of the anomaly map, in pixels.
            batch_size: size of a full batch.
            mesh: the devices; a batch is split over them.
        """
        self.networks, self.variables = networks, variables
        self.batch_sizes = _batch_sizes(batch_size, mesh.size)
        self._mesh = mesh
        self._blur = jnp.asarray(scores.blur_matrix(image_shape[0], map_sigma))
        self._score = _jitted_score(networks, mesh)
        self._use = _jitted_use(networks, mesh)

    def __call__(self, images: np.ndarray) -> RawScores:
        """Scores uint8 ``(n, H, W, C)``, n >= 1.

        Raises:
            NonFiniteError: naming the first image with a score or map that is not finite.
        """
        parts = []
        for count, batch in self.batches(images):
            result = jax.device_get(self._score(self.variables, batch, self._blur))
            parts.append({name: values[:count] for name, values in result.items()})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        _check_finite(joined)
        alignment = joined.get("alignment_score")
        return RawScores(
            joined["reconstruction_score"].astype(np.float64),
            None if alignment is None else alignment.astype(np.float64),
            joined["anomaly_map"],
            joined.get("feature_map"),
            joined["reconstruction"],
        )

    def memory_use(self, images: np.ndarray) -> dict[str, MemoryUse]:
        """Sums up how uint8 ``(n, H, W, C)`` images, n >= 1, read each memory, in float64."""
        totals: dict[str, MemoryUse] = {}
        for count, batch in self.batches(images):
            counted = (np.arange(len(batch)) < count).astype(np.float32)
            for scale, part in jax.device_get(self._use(self.variables, batch, counted)).items():
                sums = jax.tree.map(np.float64, part)
                old = totals.get(scale)
                totals[scale] = sums if old is None else jax.tree.map(np.add, old, sums)
        return totals

    def batches(self, images: np.ndarray) -> Iterator[tuple[int, jax.Array]]:
        """Yields padded uint8 batches on the devices, each with its number of real images."""
        size = next((one for one in self.batch_sizes if one >= len(images)), self.batch_sizes[-1])
        for start in range(0, len(images), size):
            signals.check()
            batch = np.asarray(images[start : start + size])
            count = len(batch)
            padded = np.concatenate([batch, np.repeat(batch[:1], size - count, axis=0)])
            yield count, sharding.place_batch(padded.shape, padded.__getitem__, self._mesh)


def _batch_sizes(batch_size: int, devices: int) -> tuple[int, ...]:
    """The full batch and quarters of it down to one image for each device."""
    sizes = {devices}
    while batch_size > devices:
        sizes.add(-(-batch_size // devices) * devices)
        batch_size //= _BUCKET_RATIO
    return tuple(sorted(sizes))


def _check_finite(results: dict[str, np.ndarray]) -> None:
    for name in ("reconstruction", *results):
        flat = results[name].reshape(len(results[name]), -1)
        bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"image {bad[0] + 1} of {len(flat)}: its {name} is not finite; the weights have "
                "diverged, train again with a lower train.learning_rate"
            )


@functools.lru_cache(maxsize=4)
def _jitted_score(networks: Networks, mesh: Mesh) -> Callable[..., dict[str, jax.Array]]:
    whole, split = sharding.replicated(mesh), sharding.batched(mesh)

    def score(variables: Variables, images: jax.Array, blur: jax.Array) -> dict[str, jax.Array]:
        return score_images(networks, variables, normalize_images(images), blur)

    return jax.jit(
        score,
        in_shardings=(whole, split, whole),
        out_shardings=split,
        compiler_options=compiler_options(mesh),
    )


@functools.lru_cache(maxsize=4)
def _jitted_use(networks: Networks, mesh: Mesh) -> Callable[..., dict[str, MemoryUse]]:
    whole, split = sharding.replicated(mesh), sharding.batched(mesh)

    def use(variables: Variables, images: jax.Array, counted: jax.Array) -> dict[str, MemoryUse]:
        return memory_use(networks, variables, normalize_images(images), counted)

    return jax.jit(
        use,
        in_shardings=(whole, split, split),
        out_shardings=whole,
        compiler_options=compiler_options(mesh),
    )
