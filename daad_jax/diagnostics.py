"""Why a region was rebuilt or not: what blocks read, and what the items read stand for."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from daad_jax import layers, partition
from daad_jax.addressing import SIMILARITIES
from daad_jax.generator import Generator
from daad_jax.scoring import Scorer, memory_spec
from daad_jax.step import normalize_images


class BlockReads(NamedTuple):
    """What the blocks of n images read at one scale; Q blocks each, the k largest weights.

    Attributes:
        items: int ``(n, Q, k)``, numbered through all banks, the largest weight first.
        weights: ``(n, Q, k)``; 0 where a read took fewer items.
    """

    items: np.ndarray
    weights: np.ndarray


class Neighbours(NamedTuple):
    """For each of N items, the block of some images that is most similar to it.

    Attributes:
        image: int ``(N,)``, the image's index.
        block: int ``(N,)``, the block's, in `daad_jax.partition.divide`'s order; only blocks that
            the item's bank answers are looked at.
        similarity: ``(N,)``.
    """

    image: np.ndarray
    block: np.ndarray
    similarity: np.ndarray


def memory_items(scorer: Scorer) -> dict[str, np.ndarray]:
    """The items of each scale's memory, learned or state: ``(G, N, D)`` for G banks."""
    variables = scorer.state.evaluated[0]
    result = {}
    for index, spec in enumerate(scorer.networks.generator.memories):
        if spec is not None:
            items = _items(variables, f"memory_{index + 1}")
            result[f"scale_{index + 1}"] = np.asarray(items).reshape(-1, *items.shape[-2:])
    return result


def _items(variables: Any, name: str) -> jax.Array:
    learned = variables["params"].get(name, {})
    if "memory_items" in learned:
        return learned["memory_items"]
    return variables["memory"][name]["state"]["memory_items"]


def pairwise_cosine(items: np.ndarray) -> dict[str, float]:
    """How alike the items of a bank are.

    Args:
        items: ``(G, N, D)`` of G banks.

    Returns:
        ``cosine_mean`` and ``cosine_largest`` over all pairs of different items of one bank; 0 for
        banks of a single item.
    """
    count = items.shape[1]
    if count < 2:
        return {"cosine_mean": 0.0, "cosine_largest": 0.0}
    values = items.astype(np.float64)
    values /= np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    pairs = np.concatenate([(bank @ bank.T)[np.triu_indices(count, 1)] for bank in values])
    return {"cosine_mean": float(pairs.mean()), "cosine_largest": float(pairs.max())}


def block_reads(scorer: Scorer, images: np.ndarray, most: int = 3) -> dict[str, BlockReads]:
    """Which items the blocks of images read, for each scale with a memory.

    Args:
        scorer: of the run.
        images: uint8 ``(n, H, W, C)``, a few: all weights of a batch are held at once.
        most: k, how many items of a read are told.
    """
    networks = scorer.networks

    @jax.jit
    def top(variables: Any, images: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        pixels = normalize_images(images)
        generated = _apply(networks.generator, variables, pixels, return_weights=True)
        result = {}
        for scale, read in generated["reads"].items():
            spec, count = memory_spec(networks, scale), read.weights.shape[-1]
            weights, chosen = jax.lax.top_k(read.weights, min(most, count))
            result[scale] = (chosen + count * bank_of_block(spec.rates, spec.groups), weights)
        return result

    parts = [
        {scale: (items[:count], weights[:count]) for scale, (items, weights) in values.items()}
        for count, placed in scorer.placed(images)
        for values in [jax.device_get(top(scorer.state.evaluated[0], placed))]
    ]
    return {
        scale: BlockReads(*(np.concatenate([part[scale][i] for part in parts]) for i in (0, 1)))
        for scale in parts[0]
    }


def _apply(generator: Generator, variables: Any, images: jax.Array, **options: Any) -> Any:
    return generator.apply(variables, images, train=False, **options)


def bank_of_block(rates: partition.Rates, groups: partition.Rates) -> jax.Array:
    """The number of each block's bank, int ``(1, Q, 1)``."""
    banks, blocks = int(np.prod(groups)), int(np.prod(rates))
    numbers = jnp.broadcast_to(jnp.arange(banks)[:, None, None], (banks, 1, blocks // banks))
    return partition.ungroup(numbers, rates, groups)[..., None]


def nearest_blocks(scorer: Scorer, images: np.ndarray) -> dict[str, Neighbours]:
    """The block among images' that is most similar to each item, for each scale with a memory.

    Args:
        scorer: of the run.
        images: uint8 ``(n, H, W, C)``, n at least 1: training images.
    """
    best: dict[str, Neighbours] = {}
    search = _search(scorer)
    for start, (_, placed) in enumerate(scorer.placed(images)):
        found = jax.device_get(search(scorer.state.evaluated[0], placed))
        for scale, (similarity, image, block) in found.items():
            new = Neighbours(image + start * placed.shape[0], block, similarity)
            old = best.get(scale)
            if old is None:
                best[scale] = new
            else:
                better = new.similarity > old.similarity
                pairs = zip(new, old, strict=True)
                best[scale] = Neighbours(*(np.where(better, a, b) for a, b in pairs))
    return best


def _search(scorer: Scorer) -> Callable[..., Any]:
    networks = scorer.networks

    @jax.jit
    def search(variables: Any, images: jax.Array) -> dict[str, tuple[Any, ...]]:
        pixels = normalize_images(images)
        generated = _apply(networks.generator, variables, pixels)
        result = {}
        for scale in generated["reads"]:
            spec, index = memory_spec(networks, scale), int(scale.removeprefix("scale_")) - 1
            queries = partition.divide(generated["features"][index], spec.rates)
            grouped = partition.group(queries, spec.rates, spec.groups)
            items = _items(variables, f"memory_{index + 1}")
            items = items.reshape(len(grouped), -1, items.shape[-1])
            compare = functools.partial(_compare, SIMILARITIES[spec.similarity])
            values = jax.vmap(compare)(grouped, items)  # (G, B, Q / G, N)
            # Images that pad a batch repeat its first one, which comes before them.
            banks, _, blocks, number = values.shape
            flat = values.reshape(banks, -1, number)
            place = jnp.argmax(flat, axis=1)
            positions = jnp.broadcast_to(
                jnp.arange(queries.shape[1])[None, :], (1, queries.shape[1])
            )
            own = partition.group(positions, spec.rates, spec.groups)[:, 0]  # (G, Q / G)
            block = jnp.take_along_axis(own, place % blocks, axis=1)
            result[scale] = (
                jnp.max(flat, axis=1).reshape(-1),
                (place // blocks).reshape(-1),
                block.reshape(-1),
            )
        return result

    return search


def _compare(similarity: Any, queries: jax.Array, items: jax.Array) -> jax.Array:
    """``(B, Q, D), (N, D) -> (B, Q, N)``."""
    return jax.vmap(jax.vmap(similarity, (0, None)), (0, None))(queries, items)


def decode_items(
    scorer: Scorer, images: np.ndarray, chosen: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Items as pictures: a scale's whole map made of one item, the other maps being normal means.

    Args:
        scorer: of the run.
        images: uint8 ``(n, H, W, C)``, whose mean assembled maps stand at the other scales.
        chosen: for each scale, which items ``(k,)`` of a bank; with several banks each position
            gets the item of this number from its own.

    Returns:
        For each scale float32 ``(k, H, W, C)`` in [-1, 1].
    """
    generator = scorer.networks.generator
    variables = scorer.state.evaluated[0]

    @jax.jit
    def maps(variables: Any, images: jax.Array) -> list[jax.Array]:
        generated = _apply(generator, variables, normalize_images(images))
        return [jnp.sum(one, axis=0) for one in generated["assembled"]]

    size = scorer.batch_size
    parts = [maps(variables, images[start : start + size]) for start in range(0, len(images), size)]
    means = [sum(scale) / len(images) for scale in zip(*parts, strict=True)]

    @jax.jit
    def decode(variables: Any, assembled: list[jax.Array]) -> jax.Array:
        count = len(assembled[0])
        nothing = jnp.zeros((count, *images.shape[1:]))
        generated = _apply(generator, variables, nothing, edit=lambda _: assembled)
        return generated["reconstruction"]

    result = {}
    for scale, numbers in chosen.items():
        spec, index = memory_spec(scorer.networks, scale), int(scale.removeprefix("scale_")) - 1
        bank = memory_items(scorer)[scale][:, numbers]  # (G, k, D)
        per_group = int(np.prod(spec.rates)) // len(bank)
        grouped = jnp.repeat(jnp.asarray(bank)[:, :, None], per_group, axis=2)
        blocks = partition.ungroup(grouped, spec.rates, spec.groups)
        made = partition.assemble(blocks, means[index].shape, spec.rates)
        if generator.query_from == "before":
            made = layers.leaky_relu(made)
        assembled = [
            made if place == index else jnp.repeat(mean[None], len(numbers), axis=0)
            for place, mean in enumerate(means)
        ]
        result[scale] = np.asarray(decode(variables, assembled))
    return result
