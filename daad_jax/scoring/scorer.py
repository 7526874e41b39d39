"""`Scorer`: runs trained networks over any number of images in batches of a few sizes."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from daad_jax.addressing import ItemUsage, ReadSummary, item_usage
from daad_jax.config import Config
from daad_jax.data.dataset import split_valid
from daad_jax.data.tiles import Tiles, Tiling, cut, tiling
from daad_jax.errors import NonFiniteError
from daad_jax.models.autoencoder import normalize_images, scale_memories
from daad_jax.models.blocks import group
from daad_jax.models.build import Networks
from daad_jax.models.restoration import restorations
from daad_jax.models.validity import as_weights, hide_others, keep_others
from daad_jax.runtime import sharding, signals
from daad_jax.runtime.compiler import compiler_options
from daad_jax.scoring import scores
from daad_jax.scoring.deviation import image_light
from daad_jax.scoring.scores import RawScores

Variables = tuple[Mapping[str, Any], Mapping[str, Any] | None]
"""The variables of the generator and of the discriminator, or None without one."""

_BUCKET_RATIO = 4


def score_images(
    networks: Networks,
    variables: Variables,
    images: jax.Array,
    blur: scores.Blur,
    corruption: str = "none",
    tiled: str = "",
) -> dict[str, jax.Array]:
    """Scores one batch of images ``(B, H, W, C)`` in [-1, 1]; pure, to be jitted or vmapped.

    Batch normalisation uses running statistics, so an image's scores do not depend on the rest of
    the batch. `blur` is that of `daad_jax.scoring.scores.anomaly_map`. Images may have the channel
    of `daad_jax.data.dataset.split_valid`. Pixels that do not count are those of the image in the
    reconstruction, and 0 in the maps.

    Returns ``reconstruction_score`` (B,), ``anomaly_map`` (B, H, W), ``reconstruction`` (B, H, W,
    C) and, with a discriminator, ``alignment_score`` (B,) and ``feature_map`` (B, h, w). They are
    means over the restorations of `corruption`; the reconstruction is the first of them. `tiled`
    adds ``error_map`` (B, H, W), the error before smoothing.
    """
    generator, discriminator = cast(Any, networks)
    images, channel = split_valid(images)
    valid = as_weights(channel)

    def rebuild(seen: jax.Array) -> jax.Array:
        reconstruction: jax.Array = generator.apply(variables[0], seen, train=False).reconstruction
        return reconstruction

    def features(seen: jax.Array) -> jax.Array:
        extracted: jax.Array = discriminator.apply(variables[1], seen, train=False).features
        return extracted

    results, own = [], None if discriminator is None else features(images)
    restored = [
        keep_others(one, images, valid) for one in restorations(corruption, rebuild, images)
    ]
    for reconstruction in restored:
        result = {
            "reconstruction_score": scores.mean_squared(images, reconstruction, valid),
            "anomaly_map": scores.anomaly_map(images, reconstruction, blur, valid),
        }
        if tiled:
            result["error_map"] = scores.squared_map(images, reconstruction)
        if own is not None:
            rebuilt = features(reconstruction)
            result["alignment_score"] = scores.mean_squared(own, rebuilt, valid)
            result["feature_map"] = hide_others(scores.squared_map(own, rebuilt), valid)
        results.append(result)
    mean = jax.tree.map(lambda *parts: sum(parts) / len(parts), *results)
    return mean | {"reconstruction": restored[0]}


class MemoryUse(NamedTuple):
    """How the blocks of some images read one memory.

    `usage` is that of each item of all banks, and `reads` the number of reads. Each field of
    `summary` is a sum over the reads.
    """

    usage: ItemUsage
    reads: jax.Array
    summary: ReadSummary


def memory_use(
    networks: Networks, variables: Variables, images: jax.Array, counted: jax.Array
) -> dict[str, MemoryUse]:
    """Sums up how one batch ``(B, H, W, C)`` in [-1, 1] reads each memory; pure, to be jitted.

    Blocks of pixels that do not count are read like others. `counted` ``(B,)`` is 1.0 for a real
    image and 0.0 for padding of the batch. Returns a `MemoryUse` for each scale with a memory, by
    name.
    """
    generator = cast(Any, networks.generator)
    colours, _ = split_valid(images)
    output = generator.apply(variables[0], colours, train=False, return_weights=True)
    result = {}
    for scale, memory in scale_memories(networks.generator).items():
        read = output.reads[scale]
        grouped = group(read.weights, memory.rates, memory.groups)
        usage = jax.tree.map(jnp.ravel, jax.vmap(item_usage, (0, None))(grouped, counted))
        summary = jax.tree.map(lambda one: jnp.sum(one * counted[:, None]), read.summary)
        result[scale] = MemoryUse(usage, jnp.sum(counted) * read.weights.shape[1], summary)
    return result


class Scorer:
    """Scores uint8 images with trained networks.

    Large pictures are cut into tiles, if `data.tile` says so, and their maps are put together.
    Images are scored in full batches. A call with fewer images uses the smallest of `batch_sizes`
    that holds them, so that a single image is not padded to a full batch.
    """

    def __init__(
        self, networks: Networks, variables: Variables, config: Config, mesh: Mesh
    ) -> None:
        """Takes the networks and their variables, which are on the mesh; compiles at first use."""
        self.networks, self.variables, self._mesh, self._config = networks, variables, mesh, config
        self.batch_sizes = batch_sizes(config.score.batch_size, mesh.size)
        self._blur, self._data = map_blur(config), config.data
        whole, split = sharding.replicated(mesh), sharding.batched(mesh)
        results = whole if jax.process_count() > 1 else split  # each process gets all of them
        options = score_options(config)
        self._score = _jitted(score_images, networks, mesh, (whole, results), *options)
        self._use = _jitted(memory_use, networks, mesh, (split, whole))

    def __call__(self, images: np.ndarray) -> RawScores:
        """Scores uint8 images ``(n, H, W, C)`` in 0 to 255.

        They may have the channel of `daad_jax.data.dataset.split_valid`. Raises NonFiniteError,
        which names the first image with a score or map that is not finite.
        """
        tiles = self.cut(images)
        joined = self._score_tiles(tiles) if isinstance(tiles, Tiles) else self._score_all(tiles)
        _check_finite(joined)
        return raw_scores(joined, images)

    def local(self) -> "Scorer":
        """The same scorer on the devices of this process alone; with several, a collective call."""
        if jax.process_count() == 1:
            return self
        mesh = sharding.make_mesh(jax.local_devices())
        whole = jax.jit(lambda tree: tree, out_shardings=sharding.replicated(self._mesh))
        own = sharding.place_tree(jax.device_get(whole(self.variables)), mesh)
        return Scorer(self.networks, own, self._config, mesh)

    def cut(self, images: np.ndarray) -> np.ndarray | Tiles:
        """The images that the networks take: those given, or their tiles."""
        return cut(images, self._data)

    def _score_all(self, images: np.ndarray | Tiles) -> dict[str, np.ndarray]:
        parts = []
        for count, batch in self.batches(images):
            result = jax.device_get(self._score(self.variables, batch, self._blur))
            parts.append({name: values[:count] for name, values in result.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _score_tiles(self, tiles: Tiles) -> dict[str, np.ndarray]:
        """Scores pictures one by one, so that only the tiles of one are in memory."""
        blank = np.zeros((1, *tiles.images.shape[1:]), np.uint8)  # gives the shapes of no pictures
        pictures = tiles.images if len(tiles.images) else blank
        parts = []
        for index in range(len(pictures)):
            own = Tiles(pictures[index : index + 1], tiles.tiling)
            parts.append(blended(self._score_all(own), tiles.tiling, pictures[index]))
        return {
            name: np.stack([part[name] for part in parts])[: len(tiles.images)] for name in parts[0]
        }

    def memory_use(self, images: np.ndarray | Tiles) -> dict[str, MemoryUse]:
        """Sums up, in float64, how uint8 images, n >= 1 as `cut` returns, read each memory."""
        totals: dict[str, MemoryUse] = {}
        for count, batch in self.batches(images):
            real = (np.arange(len(batch)) < count).astype(np.float32)
            counted = sharding.place_batch(real.shape, real.__getitem__, self._mesh)
            for scale, part in jax.device_get(self._use(self.variables, batch, counted)).items():
                sums = jax.tree.map(np.float64, part)
                old = totals.get(scale)
                totals[scale] = sums if old is None else jax.tree.map(np.add, old, sums)
        return totals

    def batches(self, images: np.ndarray | Tiles) -> Iterator[tuple[int, jax.Array]]:
        """Yields padded uint8 batches on the devices, each with its number of real images."""
        size = next((one for one in self.batch_sizes if one >= len(images)), self.batch_sizes[-1])
        for start in range(0, max(len(images), 1), size):  # no images are one batch of padding
            signals.check()
            batch = np.asarray(images[start : start + size])
            count = len(batch)
            padded = np.zeros((size, *batch.shape[1:]), batch.dtype)
            padded[:count] = batch
            padded[count:] = padded[0]
            yield count, sharding.place_batch(padded.shape, padded.__getitem__, self._mesh)


def raw_scores(scored: Mapping[str, Any], images: Any) -> RawScores:
    """The results of `score_images` for uint8 images ``(n, H, W, C)`` in the form of `RawScores`.

    Takes NumPy or JAX arrays; those of JAX need 64-bit types to be enabled.
    """
    alignment, (colours, valid) = scored.get("alignment_score"), split_valid(images)
    valid = None if valid is None else valid[..., 0] > 0
    return RawScores(
        scored["reconstruction_score"].astype(np.float64),
        None if alignment is None else alignment.astype(np.float64),
        scored["anomaly_map"],
        scored.get("feature_map"),
        scored["reconstruction"],
        image_light(colours, valid),
        valid,
    )


def blended(scored: Mapping[str, Any], parts: Tiling, picture: Any) -> dict[str, Any]:
    """The scores and maps of one picture ``(H, W, C)`` from those of its tiles.

    R and L are means of the blended errors over the pixels that count. Cells of the feature map
    become the pixels that they cover. Takes what `raw_scores` takes.
    """
    valid = split_valid(picture)[1]
    counts = np.True_ if valid is None else valid[..., 0] > 0
    error = parts.blend(scored["error_map"])
    result = {
        "reconstruction_score": error.mean(dtype=np.float64, where=counts),
        "anomaly_map": parts.blend(scored["anomaly_map"]),
        "reconstruction": parts.blend(scored["reconstruction"]),
    }
    if (features := scored.get("feature_map")) is not None:
        for axis, side in enumerate(parts.tile, 1):
            features = features.take(np.arange(side) * features.shape[axis] // side, axis)
        result["feature_map"] = parts.blend(features)
        result["alignment_score"] = result["feature_map"].mean(dtype=np.float64, where=counts)
    return result


def map_blur(config: Config) -> scores.Blur:
    """The blur that smooths the maps of what the networks take: images, or their tiles."""
    sides, sigma = config.data.network_size, config.score.map_sigma
    down, across = (jnp.asarray(scores.blur_matrix(side, sigma)) for side in sides)
    return down, across


def score_options(config: Config) -> tuple[str, ...]:
    """The last arguments of `score_images`."""
    return (config.train.corruption, *(["tiled"] if tiling(config.data) else []))


def batch_sizes(batch_size: int, devices: int) -> tuple[int, ...]:
    """The full batch size, a quarter of it, and so on, down to one image for each device."""
    sizes = {devices}
    while batch_size > devices:
        sizes.add(-(-batch_size // devices) * devices)
        batch_size //= _BUCKET_RATIO
    return tuple(sorted(sizes))


def _check_finite(results: dict[str, np.ndarray]) -> None:
    for name in ("reconstruction", *results):
        values = results[name]
        bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
        if len(bad):
            raise NonFiniteError(
                f"image {bad[0] + 1} of {len(values)}: its {name} is not finite; the weights have "
                "diverged, train again with a lower train.learning_rate"
            )


@functools.lru_cache(maxsize=8)
def _jitted(
    function: Callable[..., Any],
    networks: Networks,
    mesh: Mesh,
    shardings: tuple[Any, Any],
    *options: str,
) -> Callable[..., Any]:
    """Compiles a function of variables, uint8 images, one more array and options for a mesh."""
    third, results = shardings

    def compute(variables: Variables, images: jax.Array, more: Any) -> Any:
        return function(networks, variables, normalize_images(images), more, *options)

    return jax.jit(
        sharding.on_mesh(compute, mesh),
        in_shardings=(None, sharding.batched(mesh), third),  # variables stay where they are
        out_shardings=results,
        compiler_options=compiler_options(mesh),
    )
