"""The pure read of a memory bank, its `jax.vmap` over blocks and images, and read summaries."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from daad_jax.addressing.rule import Arrays, Request, Rule
from daad_jax.addressing.rules.dense import Threshold
from daad_jax.addressing.similarity import Compare, cosine
from daad_jax.runtime import sharding

_EPSILON = 1e-8
_THRESHOLD = Threshold()


class ReadSummary(NamedTuple):
    """Summary of reads without their N weights. Each field has the shape of the reads.

    `active_items` is the number of items with a weight above zero, and `largest_weight` is in
    [0, 1]. `dead` is 1.0 if every weight is zero, so that the block is zero, and 0.0 otherwise.
    `entropy`, in nats, is that of the weights scaled to sum to one; it is 0 for a dead read.
    """

    active_items: jax.Array
    largest_weight: jax.Array
    entropy: jax.Array
    dead: jax.Array


class MemoryRead(NamedTuple):
    """The result of `read`; `read_blocks` adds leading axes to every array.

    The block ``(D,)`` replaces the query. The addressing weights ``(N,)`` are None unless they were
    requested.
    """

    block: jax.Array
    summary: ReadSummary
    weights: jax.Array | None


class ItemUsage(NamedTuple):
    """Use of each of N items; the items of several banks are concatenated.

    `reads` ``(N,)`` counts the reads that gave the item a weight above zero. `weight` ``(N,)`` is
    the sum of the item's weights.
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

    The query ``(D,)`` is one flattened block, of any range, and the items ``(N, D)`` are the bank.
    The similarity is a function such as those in `daad_jax.addressing.SIMILARITIES`. The
    temperature, above 0, divides the similarities before the rule weighs them. Some rules have
    learned arrays `params` (see `Rule.init_params`) or a state (see `Rule.init_state`). Without a
    key the rule draws no noise. `return_weights` adds the weights ``(N,)`` to the result.
    """

    def compare(query: jax.Array, items: jax.Array) -> jax.Array:
        return similarity(query, items) / temperature

    request = Request(query, items, compare, params or {}, state or {}, key)
    block, weights = rule.read(request)
    return MemoryRead(block, summarize(weights), weights if return_weights else None)


def summarize(weights: jax.Array) -> ReadSummary:
    """Summarises the non-negative weights ``(N,)`` of one read; no gradient passes through."""
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
    """Sums the use of each item over the reads of a batch with weights ``(B, Q, N)``.

    `counted` ``(B,)`` is 1.0 for a real image and 0.0 for padding; None counts every image.
    """
    if counted is not None:
        weights = weights * counted[:, None, None]
    return ItemUsage(jnp.sum(weights > 0.0, axis=(0, 1)), jnp.sum(weights, axis=(0, 1)))


def perplexity(weight: jax.Array) -> jax.Array:
    """Effective number of items: the exponential of the entropy of the items' shares.

    `weight` ``(N,)`` is that of `ItemUsage`. The result is a scalar: N if all items are used
    equally, 1 if a single item is used, and 0 if none is.
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
    """Reads one bank ``(N, D)`` with many queries ``(..., D)``: `read` under `jax.vmap`.

    The keys ``(...)`` hold one random key for each read; None means no noise. The options are
    ``similarity``, ``temperature``, ``params``, ``state`` and ``return_weights`` of `read`.
    """

    def read_one(query: jax.Array, key: jax.Array | None) -> MemoryRead:
        return read(query, items, rule, key=key, **options)

    function: Callable[[jax.Array, jax.Array | None], MemoryRead] = read_one
    for _ in range(queries.ndim - 1):
        function = jax.vmap(function)
    return function(queries, keys)


def read_batch(queries: jax.Array, items: jax.Array, rule: Rule, **options: Any) -> MemoryRead:
    """Reads a bank ``(N, D)``, which devices may share, with the blocks of a batch ``(B, Q, D)``.

    The results, with the weights, are those of `read_blocks`, whose options it takes. Where devices
    share the bank, see `daad_jax.runtime.sharding`, none of them holds all weights of a block.
    """
    along_items, along_values = sharding.bank_axes(*items.shape)
    items = sharding.constrain(items, along_items, along_values)
    queries = sharding.constrain(queries, "reads", None, along_values)
    reads = read_blocks(queries, items, rule, return_weights=True, **options)
    # Twice, so that the gradient of the items is computed where the items are.
    block = sharding.constrain(reads.block, "reads", None, along_values)
    block = sharding.constrain(block, "batch", None, None)
    assert reads.weights is not None
    weights = sharding.constrain(reads.weights, "reads", None, along_items)
    return reads._replace(block=block, weights=weights)


def chunk_count(images: int, blocks: int, items: int, most_bytes: int) -> int:
    """Number of chunks for reads whose float32 weights may take at most `most_bytes` at once.

    `blocks` counts the blocks of one image, and `items` those of all banks that are read together.
    Chunking saves memory, not time. So this is the smallest divisor of `blocks` that keeps a
    chunk's weights within `most_bytes`, or `blocks` if none does. With `most_bytes` 0 it is 1.
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

    The queries are ``(B, Q, D)`` and the keys ``(B, Q)`` or None; `count` must divide Q.
    `read_chunk` reads queries ``(B, Q / count, D)`` with keys ``(B, Q / count)`` or None, and must
    return the weights. Returns the reads without weights, and the use of the items over all reads.
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
