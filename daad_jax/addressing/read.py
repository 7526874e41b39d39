"""The pure read of a memory bank, over blocks and images by `jax.vmap`, and what summarises it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from daad_jax.addressing.rule import Arrays, Request, Rule
from daad_jax.addressing.rules.dense import Threshold
from daad_jax.addressing.similarity import Compare, cosine

_EPSILON = 1e-8
_THRESHOLD = Threshold()


class ReadSummary(NamedTuple):
    """Summary of reads without their N weights. Each field has the shape of the reads.

    Attributes:
        active_items: number of items with a weight above zero.
        largest_weight: the largest weight, in [0, 1].
        entropy: entropy of the weights scaled to sum to one, in nats; 0 for a dead read.
        dead: 1.0 if every weight is zero, so that the block is zero, else 0.0.
    """

    active_items: jax.Array
    largest_weight: jax.Array
    entropy: jax.Array
    dead: jax.Array


class MemoryRead(NamedTuple):
    """The result of `read`; `read_blocks` adds leading axes to every array.

    Attributes:
        block: ``(D,)``, the block that replaces the query.
        summary: scalars that describe the read.
        weights: ``(N,)``, the addressing weights, or None if they were not requested.
    """

    block: jax.Array
    summary: ReadSummary
    weights: jax.Array | None


class ItemUsage(NamedTuple):
    """Use of each of N items; the items of several banks are concatenated.

    Attributes:
        reads: ``(N,)``, number of reads that gave the item a weight above zero.
        weight: ``(N,)``, sum of the item's weights.
    """

    reads: jax.Array
    weight: jax.Array


def read(
    query: jax.Array,
    items: jax.Array,
    rule: Rule = _THRESHOLD,
    *,
    similarity: Compare = cosine,
    temperature: float | jax.Array = 1.0,
    params: Arrays | None = None,
    state: Arrays | None = None,
    key: jax.Array | None = None,
    return_weights: bool = False,
) -> MemoryRead:
    """Reads a bank with one query, Eq. (2): ``q_hat = w M = sum_i w_i m_i``.

    Pure. ``jax.vmap(read, in_axes=(0, None))`` reads many blocks; `read_blocks` does that over any
    number of axes.

    Args:
        query: ``(D,)``, one flattened block, any range.
        items: ``(N, D)``, the bank.
        rule: the addressing rule.
        similarity: similarity function, one of `daad_jax.addressing.SIMILARITIES` for example.
        temperature: divides the similarities before the rule weighs them; above 0.
        params: the rule's learned arrays, for a rule with `Rule.init_params`.
        state: the rule's state, for a rule with `Rule.init_state`.
        key: random key of the rule's noise, or None for no noise.
        return_weights: whether the result holds the weights ``(N,)``.
    """

    def compare(query: jax.Array, items: jax.Array) -> jax.Array:
        return similarity(query, items) / temperature

    request = Request(query, items, compare, params or {}, state or {}, key)
    block, weights = rule.read(request)
    return MemoryRead(block, summarize(weights), weights if return_weights else None)


def summarize(weights: jax.Array) -> ReadSummary:
    """Summarises the addressing weights ``(N,)`` of one read, not negative; without gradient."""
    weights = jax.lax.stop_gradient(weights)
    total = jnp.sum(weights)
    share = weights / jnp.maximum(total, _EPSILON)
    return ReadSummary(
        active_items=jnp.sum(weights > 0.0).astype(weights.dtype),
        largest_weight=jnp.max(weights),
        entropy=jnp.sum(jax.scipy.special.entr(share)),
        dead=(total <= 0.0).astype(weights.dtype),
    )


def item_usage(weights: jax.Array, counted: jax.Array | None = None) -> ItemUsage:
    """Sums the use of each item over the reads of a batch.

    Args:
        weights: ``(B, Q, N)``, addressing weights.
        counted: ``(B,)``, 1.0 for an image that counts and 0.0 for padding; None counts all.
    """
    if counted is not None:
        weights = weights * counted[:, None, None]
    return ItemUsage(jnp.sum(weights > 0.0, axis=(0, 1)), jnp.sum(weights, axis=(0, 1)))


def perplexity(weight: jax.Array) -> jax.Array:
    """Effective number of items: exponential of the entropy of the items' shares.

    Args:
        weight: ``(N,)``, sums of weights by item, see `ItemUsage`.

    Returns:
        A scalar: N if all items are used equally, 1 if one item is used, 0 without any use.
    """
    total = jnp.sum(weight)
    share = weight / jnp.maximum(total, _EPSILON)
    return jnp.where(total > 0.0, jnp.exp(jnp.sum(jax.scipy.special.entr(share))), 0.0)


def read_blocks(
    queries: jax.Array,
    items: jax.Array,
    rule: Rule = _THRESHOLD,
    *,
    keys: jax.Array | None = None,
    **options: Any,
) -> MemoryRead:
    """Reads one bank with many queries: `read` vmapped over the leading axes of the queries.

    Args:
        queries: ``(..., D)``.
        items: ``(N, D)``.
        rule: the addressing rule.
        keys: ``(...)``, one random key for each read, or None for no noise.
        options: ``similarity``, ``temperature``, ``params``, ``state`` and ``return_weights`` of
            `read`.
    """

    def read_one(query: jax.Array, key: jax.Array | None) -> MemoryRead:
        return read(query, items, rule, key=key, **options)

    function: Callable[[jax.Array, jax.Array | None], MemoryRead] = read_one
    for _ in range(queries.ndim - 1):
        function = jax.vmap(function)
    return function(queries, keys)


def chunk_count(images: int, blocks: int, items: int, most_bytes: int) -> int:
    """Number of chunks for reads whose float32 weights may take at most ``most_bytes`` at once.

    Chunking saves memory, not time, so this is the smallest divisor of the number of blocks that
    is large enough; the number of blocks if none is.

    Args:
        images: B, number of images of the batch.
        blocks: Q, number of blocks of each image.
        items: N, number of items, over all banks that are read together.
        most_bytes: largest number of bytes of a chunk's weights; 0 never divides.
    """
    size = 4 * images * blocks * items
    if most_bytes == 0 or size <= most_bytes:
        return 1
    divisors = (count for count in range(2, blocks) if blocks % count == 0)
    return next((count for count in divisors if size <= most_bytes * count), blocks)


def read_in_chunks(
    read_chunk: Callable[[jax.Array, jax.Array | None], MemoryRead],
    queries: jax.Array,
    keys: jax.Array | None,
    count: int,
) -> tuple[MemoryRead, ItemUsage]:
    """Reads chunks of blocks one after the other, so that only one chunk's weights exist at a time.

    The backward pass repeats the read of each chunk instead of keeping its weights.

    Args:
        read_chunk: reads queries ``(B, Q / count, D)`` with keys ``(B, Q / count)`` or None; its
            result holds the weights.
        queries: ``(B, Q, D)``.
        keys: ``(B, Q)`` or None.
        count: number of chunks, which divides Q.

    Returns:
        The reads without weights, and the use of the items over all reads.
    """

    def split(x: jax.Array) -> jax.Array:  # keeps the axis of images, which devices may share
        return jnp.moveaxis(x.reshape(x.shape[0], count, -1, *x.shape[2:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def read_one(chunk: tuple[jax.Array, jax.Array | None]) -> tuple[MemoryRead, ItemUsage]:
        reads = read_chunk(*chunk)
        assert reads.weights is not None
        usage = item_usage(jax.lax.stop_gradient(reads.weights))
        return reads._replace(weights=None), usage

    reads, usage = jax.lax.map(read_one, jax.tree.map(split, (queries, keys)))
    return jax.tree.map(join, reads), jax.tree.map(lambda x: jnp.sum(x, axis=0), usage)
