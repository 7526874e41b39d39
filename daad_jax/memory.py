"""The block-wise memory (Section 3.1.2): a pure read, vmapped, and the Flax module around it."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax import addressing, layers, partition
from daad_jax.addressing import Rule

_EPSILON = 1e-8


class ReadSummary(NamedTuple):
    """What a read did, without its N weights. Each field has the shape of the reads.

    Attributes:
        active_items: how many items have a weight above zero.
        largest_weight: the largest weight, in [0, 1].
        entropy: entropy of the weights scaled to sum to one, in nats; 0 for a dead read.
        dead: 1.0 where every weight was dropped, so that the block is zero, else 0.0.
    """

    active_items: jax.Array
    largest_weight: jax.Array
    entropy: jax.Array
    dead: jax.Array


class MemoryRead(NamedTuple):
    """The result of `read`.

    Attributes:
        block: ``(D,)``, the aggregated block.
        summary: scalars that describe the read.
        weights: ``(N,)`` addressing weights, or None when they were not asked for.
    """

    block: jax.Array
    summary: ReadSummary
    weights: jax.Array | None


class ItemUsage(NamedTuple):
    """How much each of N items was read.

    Attributes:
        reads: ``(N,)``, how many reads gave the item a weight above zero.
        weight: ``(N,)``, the sum of its weights.
    """

    reads: jax.Array
    weight: jax.Array


def cosine_similarities(query: jax.Array, memory_items: jax.Array) -> jax.Array:
    """Cosine similarity of a query ``(D,)`` with every item ``(N, D)``: ``(N,)`` in [-1, 1].

    A zero query or item has similarity 0 and a finite gradient.
    """
    # One query is a 1 x D product, so that vmap over queries makes a matrix product of it.
    return _normalized(memory_items) @ _normalized(query)


def read(
    query: jax.Array,
    memory_items: jax.Array,
    rule: Rule = addressing.threshold,
    *,
    temperature: float = 1.0,
    return_weights: bool = False,
) -> MemoryRead:
    """Reads the memory with one query, Eq. (2): ``q_hat = w M = sum_i w_i m_i``.

    Pure and made to be vmapped: ``jax.vmap(read, in_axes=(0, None))`` over blocks, once more over
    images.

    Args:
        query: ``(D,)``, one flattened block, any range.
        memory_items: ``(N, D)``, the bank.
        rule: function from similarities ``(N,)`` to weights ``(N,)``.
        temperature: what the cosine similarities are divided by before the rule; above 0.
        return_weights: whether the result holds the ``(N,)`` weights.

    Returns:
        The block, a summary and, on request, the weights.
    """
    weights = rule(cosine_similarities(query, memory_items) / temperature)
    block = weights @ memory_items
    return MemoryRead(block, summarize(weights), weights if return_weights else None)


def summarize(weights: jax.Array) -> ReadSummary:
    """Summarises addressing weights ``(N,)``, non-negative; see `ReadSummary`."""
    weights = jax.lax.stop_gradient(weights)
    total = jnp.sum(weights)
    share = weights / jnp.maximum(total, _EPSILON)
    return ReadSummary(
        active_items=jnp.sum(weights > 0.0).astype(weights.dtype),
        largest_weight=jnp.max(weights),
        entropy=jnp.sum(jax.scipy.special.entr(share)),
        dead=(total <= 0.0).astype(weights.dtype),
    )


def item_usage(weights: jax.Array, counted: jax.Array) -> ItemUsage:
    """Sums up by item what the reads of images did.

    Args:
        weights: ``(B, Q, N)`` addressing weights.
        counted: ``(B,)``, 1.0 for an image that counts and 0.0 for one that pads the batch.

    Returns:
        `ItemUsage` of ``(N,)`` each.
    """
    weights = weights * counted[:, None, None]
    return ItemUsage(jnp.sum(weights > 0.0, axis=(0, 1)), jnp.sum(weights, axis=(0, 1)))


def read_blocks(
    queries: jax.Array,
    memory_items: jax.Array,
    rule: Rule = addressing.threshold,
    *,
    temperature: float = 1.0,
    return_weights: bool = False,
) -> MemoryRead:
    """`read` vmapped over every leading axis of ``queries`` ``(..., D)`` with one bank."""

    def read_one(query: jax.Array) -> MemoryRead:
        return read(
            query, memory_items, rule, temperature=temperature, return_weights=return_weights
        )

    function: Callable[[jax.Array], MemoryRead] = read_one
    for _ in range(queries.ndim - 1):
        function = jax.vmap(function)
    return function(queries)


class BlockMemory(nn.Module):
    """A memory bank between two feature maps of one shape: divide, read every block, assemble.

    Attributes:
        items: N, the number of memory items.
        rates: ``(r_h, r_w, r_c)``.
        rule: the addressing rule.
        temperature: what the similarities are divided by.
        init_scale: an item's norm at the start, relative to the root mean square of the norms of
            the queries that `init` is called with.
    """

    items: int
    rates: partition.Rates
    rule: Rule = addressing.threshold
    temperature: float = 1.0
    init_scale: float = 1.0

    @nn.compact
    def __call__(
        self, feature_map: jax.Array, return_weights: bool = False
    ) -> tuple[jax.Array, MemoryRead]:
        """Passes ``(B, H, W, C)`` through the memory.

        Returns:
            The assembled map ``(B, H, W, C)``, and the reads with leading axes ``(B, Q)``.
        """
        queries = partition.divide(layers.at_least_float32(feature_map), self.rates)
        memory_items = self.param("memory_items", self._init_items, queries)
        reads = read_blocks(
            queries,
            memory_items,
            self.rule,
            temperature=self.temperature,
            return_weights=return_weights,
        )
        blocks = reads.block.astype(feature_map.dtype)
        return partition.assemble(blocks, feature_map.shape, self.rates), reads

    def _init_items(self, key: jax.Array, queries: jax.Array) -> jax.Array:
        scale = self.init_scale * jnp.sqrt(jnp.mean(jnp.square(queries)))
        return scale * jax.random.normal(key, (self.items, queries.shape[-1]), queries.dtype)


def _normalized(vectors: jax.Array) -> jax.Array:
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, _EPSILON**2))
