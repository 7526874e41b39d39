"""Diagnostics of the memories: what blocks read, and what the items stand for."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from daad_jax.models import autoencoder, blocks
from daad_jax.models.autoencoder import normalize_images, scale_memories
from daad_jax.models.memory import BlockMemory
from daad_jax.scoring.scorer import Scorer


class BlockReads(NamedTuple):
    """The k largest weights of the reads of n images at one scale, with Q blocks each.

    `items` is int ``(n, Q, k)``, numbered through all banks, with the item of the largest weight
    first. `weights` is ``(n, Q, k)`` and 0 where a read has fewer items.
    """

    items: Any
    weights: Any


class Neighbours(NamedTuple):
    """The most similar block of some images to each of N items.

    `image` is int ``(N,)``, the index of the image. `block` is int ``(N,)``, the index of the block
    in the order of `daad_jax.models.blocks.divide`. Only blocks that read the item's bank are
    compared. `similarity` is ``(N,)``.
    """

    image: Any
    block: Any
    similarity: Any


def memory_items(scorer: Scorer) -> dict[str, np.ndarray]:
    """The items of each memory by scale, ``(G, N, D)`` for G banks of N items."""
    items = autoencoder.memory_items(scorer.networks.generator, scorer.variables[0])
    return {scale: np.asarray(bank) for scale, bank in items.items()}


def pairwise_cosine(items: np.ndarray) -> dict[str, float]:
    """How similar the items of a bank are.

    `items` is ``(G, N, D)`` for G banks. Returns ``cosine_mean`` and ``cosine_largest`` over all
    pairs of different items of one bank. Both are 0 for banks of one item.
    """
    count = items.shape[1]
    if count < 2:
        return {"cosine_mean": 0.0, "cosine_largest": 0.0}
    values = items.astype(np.float64)
    values /= np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    pairs = np.concatenate([(bank @ bank.T)[np.triu_indices(count, 1)] for bank in values])
    return {"cosine_mean": float(pairs.mean()), "cosine_largest": float(pairs.max())}


def block_reads(scorer: Scorer, images: np.ndarray, most: int = 3) -> dict[str, BlockReads]:
    """The items that the blocks of images read, for each scale with a memory.

    `images` is uint8 ``(n, H, W, C)``. The weights of a whole batch are held at once. `most` is k,
    the number of items per read.
    """
    generator: Any = scorer.networks.generator
    memories = scale_memories(generator)

    @jax.jit
    def largest(variables: Any, images: jax.Array) -> dict[str, BlockReads]:
        pixels = normalize_images(images)
        output = generator.apply(variables, pixels, train=False, return_weights=True)
        result = {}
        for scale, read in output.reads.items():
            count = read.weights.shape[-1]
            weights, chosen = jax.lax.top_k(read.weights, min(most, count))
            result[scale] = BlockReads(chosen + count * bank_of_block(memories[scale]), weights)
        return result

    parts = [
        jax.tree.map(lambda values, count=count: values[:count], jax.device_get(reads))
        for count, batch in scorer.batches(images)
        for reads in [largest(scorer.variables[0], batch)]
    ]
    return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def bank_of_block(memory: BlockMemory) -> jax.Array:
    """The number of each block's bank, int ``(1, Q, 1)``."""
    banks, count = int(np.prod(memory.groups)), int(np.prod(memory.rates))
    numbers = jnp.broadcast_to(jnp.arange(banks)[:, None, None], (banks, 1, count // banks))
    return blocks.ungroup(numbers, memory.rates, memory.groups)[..., None]


def nearest_blocks(scorer: Scorer, images: np.ndarray) -> dict[str, Neighbours]:
    """The most similar block to each item, for each scale with a memory.

    `images` are training images, uint8 ``(n, H, W, C)``, n >= 1.
    """
    generator = scorer.networks.generator
    memories = scale_memories(generator)

    @jax.jit
    def search(variables: Any, images: jax.Array) -> dict[str, Neighbours]:
        pixels = normalize_images(images)
        maps = generator.apply(variables, pixels, train=False, method="encode")
        items = autoencoder.memory_items(generator, variables)
        named = dict(zip(autoencoder.all_scale_names(generator), maps, strict=True))
        return {
            scale: _nearest(memory, named[scale], items[scale])
            for scale, memory in memories.items()
        }

    best: dict[str, Neighbours] = {}
    start = 0
    for count, batch in scorer.batches(images):
        found = jax.device_get(search(scorer.variables[0], batch))
        for scale, new in found.items():
            new = new._replace(image=new.image + start)
            old = best.get(scale, new)
            better = new.similarity > old.similarity
            best[scale] = Neighbours(
                *(np.where(better, a, b) for a, b in zip(new, old, strict=True))
            )
        start += count
    return best


def _nearest(memory: BlockMemory, feature_map: jax.Array, items: jax.Array) -> Neighbours:
    """Searches one batch. Images that pad it repeat its first image, which is found first."""
    queries = blocks.group(memory.queries(feature_map), memory.rates, memory.groups)
    compare = jax.vmap(jax.vmap(memory.similarity, (0, None)), (0, None))
    values = jax.vmap(compare)(queries, items)  # (G, B, Q / G, N)
    banks, _, count, number = values.shape
    flat = values.reshape(banks, -1, number)
    place = jnp.argmax(flat, axis=1)
    positions = jnp.arange(banks * count)[None, :]
    own = blocks.group(positions, memory.rates, memory.groups)[:, 0]  # (G, Q / G)
    block = jnp.take_along_axis(own, place % count, axis=1)
    return Neighbours(
        (place // count).reshape(-1), block.reshape(-1), jnp.max(flat, axis=1).reshape(-1)
    )


def decode_items(
    scorer: Scorer, images: np.ndarray, chosen: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Decodes items to images, for each scale in `chosen`.

    The whole map of the scale is made of one item. The maps of the other scales are the means of
    the assembled maps of `images`, uint8 ``(n, H, W, C)``. `chosen` holds for each scale the
    numbers ``(k,)`` of items of a bank. With several banks each position gets the item of this
    number of its own bank. Returns for each scale float32 ``(k, H, W, C)`` in [-1, 1].
    """
    generator: Any = scorer.networks.generator
    variables = scorer.variables[0]

    @jax.jit
    def sums(variables: Any, images: jax.Array) -> tuple[jax.Array, ...]:
        output = generator.apply(variables, normalize_images(images), train=False)
        return tuple(jnp.sum(one, axis=0) for one in output.assembled)

    size = scorer.batch_sizes[-1]
    parts = [sums(variables, images[start : start + size]) for start in range(0, len(images), size)]
    means = [sum(scale) / len(images) for scale in zip(*parts, strict=True)]
    decode = jax.jit(functools.partial(generator.apply, train=False, method="decode"))
    memories, items = scale_memories(generator), memory_items(scorer)
    names = autoencoder.all_scale_names(generator)
    result = {}
    for scale, numbers in chosen.items():
        memory, index = memories[scale], names.index(scale)
        bank = jnp.asarray(items[scale][:, numbers])  # (G, k, D)
        per_group = int(np.prod(memory.rates)) // len(bank)
        grouped = jnp.repeat(bank[:, :, None], per_group, axis=2)
        divided = blocks.ungroup(grouped, memory.rates, memory.groups)
        maps = [jnp.repeat(mean[None], len(numbers), axis=0) for mean in means]
        maps[index] = blocks.assemble(divided, means[index].shape, memory.rates)
        result[scale] = np.asarray(decode(variables, maps))
    return result
