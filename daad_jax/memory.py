"""The block-wise memory (Section 3.1.2): a pure read, vmapped, and the Flax module around it."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax import addressing, layers, partition
from daad_jax.addressing import BatchReads, Request, Rule, Weigh
from daad_jax.addressing.interface import Arrays

_EPSILON = 1e-8
_ITEMS = "memory_items"
# With more bytes of addressing weights than the first, blocks are read in chunks of the second.
LARGE_BYTES, CHUNK_BYTES = 1 << 25, 1 << 22


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
    """How much each of N items was read; the items of several banks stand one after the other.

    Attributes:
        reads: ``(N,)``, how many reads gave the item a weight above zero.
        weight: ``(N,)``, the sum of its weights.
    """

    reads: jax.Array
    weight: jax.Array


class BatchSummary(NamedTuple):
    """What the reads of a batch come to, for one memory.

    Attributes:
        usage: of the items by all reads.
        losses: of the rule by name, scalars, means over banks.
        loss: their weighted sum, or None where the rule has none.
    """

    usage: ItemUsage
    losses: dict[str, jax.Array]
    loss: jax.Array | None


def read(
    query: jax.Array,
    memory_items: jax.Array,
    rule: Rule | Weigh = addressing.threshold,
    *,
    temperature: float | jax.Array = 1.0,
    similarity: str = "cosine",
    params: Arrays | None = None,
    state: Arrays | None = None,
    key: jax.Array | None = None,
    return_weights: bool = False,
) -> MemoryRead:
    """Reads the memory with one query, Eq. (2): ``q_hat = w M = sum_i w_i m_i``.

    Pure and made to be vmapped: ``jax.vmap(read, in_axes=(0, None))`` over blocks, once more over
    images.

    Args:
        query: ``(D,)``, one flattened block, any range.
        memory_items: ``(N, D)``, the bank.
        rule: function from similarities ``(N,)`` to weights ``(N,)``, or a `Rule`.
        temperature: what the similarities are divided by before the rule; above 0.
        similarity: one of `daad_jax.addressing.SIMILARITIES`.
        params: what the rule learns beside the items, for a rule with `Rule.init_params`.
        state: what it carries on, for a rule with `Rule.init_state`.
        key: of a rule's noise, or None for none.
        return_weights: whether the result holds the ``(N,)`` weights.

    Returns:
        The block, a summary and, on request, the weights.
    """
    compare = addressing.SIMILARITIES[similarity]
    request = Request(
        query,
        memory_items,
        lambda query, items: compare(query, items) / temperature,
        params or {},
        state or {},
        key,
    )
    block, weights = addressing.as_rule(rule).read(request)
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


def item_usage(weights: jax.Array, counted: jax.Array | None = None) -> ItemUsage:
    """Sums up by item what the reads of images did.

    Args:
        weights: ``(B, Q, N)`` addressing weights.
        counted: ``(B,)``, 1.0 for an image that counts and 0.0 for one that pads the batch; None
            where all count.

    Returns:
        `ItemUsage` of ``(N,)`` each.
    """
    if counted is not None:
        weights = weights * counted[:, None, None]
    return ItemUsage(jnp.sum(weights > 0.0, axis=(0, 1)), jnp.sum(weights, axis=(0, 1)))


def perplexity(weight: jax.Array) -> jax.Array:
    """The exponential of the entropy of the items' shares in all weight, ``(N,) -> ()``.

    N when all items are used alike, 1 when one is; 0 without any read.
    """
    total = jnp.sum(weight)
    share = weight / jnp.maximum(total, _EPSILON)
    return jnp.where(total > 0.0, jnp.exp(jnp.sum(jax.scipy.special.entr(share))), 0.0)


def read_blocks(
    queries: jax.Array,
    memory_items: jax.Array,
    rule: Rule | Weigh = addressing.threshold,
    *,
    keys: jax.Array | None = None,
    **options: Any,
) -> MemoryRead:
    """`read` vmapped over every leading axis of ``queries`` ``(..., D)`` with one bank.

    Args:
        queries: ``(..., D)``.
        memory_items: ``(N, D)``.
        rule: as in `read`.
        keys: random keys ``(...)``, one for each read, or None.
        options: the other arguments of `read`.
    """

    def read_one(query: jax.Array, key: jax.Array | None) -> MemoryRead:
        return read(query, memory_items, rule, key=key, **options)

    function: Callable[[jax.Array, jax.Array | None], MemoryRead] = read_one
    for _ in range(queries.ndim - 1):
        function = jax.vmap(function)
    return function(queries, keys)


def chunk_count(images: int, blocks: int, items: int) -> int:
    """Into how many equal chunks of at most `CHUNK_BYTES` the blocks of each image are divided.

    One up to `LARGE_BYTES`: chunks spare memory and no time.

    Args:
        images: B.
        blocks: Q, which the result divides.
        items: N, over all banks that are read together.
    """
    size = 4 * images * blocks * items
    if size <= LARGE_BYTES:
        return 1
    chunks = (count for count in range(1, blocks) if blocks % count == 0)
    return next((count for count in chunks if size <= CHUNK_BYTES * count), blocks)


def read_in_chunks(
    read_chunk: Callable[[jax.Array, jax.Array | None], MemoryRead],
    queries: jax.Array,
    keys: jax.Array | None,
    count: int,
) -> tuple[MemoryRead, ItemUsage]:
    """Reads chunk after chunk, so that never more than one chunk's weights exist.

    The backward pass reads each chunk again instead of keeping its weights.

    Args:
        read_chunk: from queries ``(B, Q / count, D)`` and their keys to reads with weights.
        queries: ``(B, Q, D)``.
        keys: ``(B, Q)`` or None.
        count: of chunks, which divides Q.

    Returns:
        The reads without weights, and the usage of the items by all of them.
    """

    def split(x: jax.Array) -> jax.Array:  # The images stay an axis: devices may share them.
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


class BlockMemory(nn.Module):
    """Memory banks between two feature maps of one shape: divide, read every block, assemble.

    Attributes:
        items: N, the number of memory items of each bank.
        rates: ``(r_h, r_w, r_c)``.
        rule: the addressing rule.
        temperature: what the similarities are divided by.
        init_scale: an item's norm at the start, relative to the root mean square of the norms of
            the queries that `init` is called with.
        similarity: one of `daad_jax.addressing.SIMILARITIES`.
        learned_temperature: whether each bank learns its own, from `temperature` on.
        groups: ``(g_h, g_w, g_c)``, into how many groups of positions the blocks are divided along
            each axis; each group has a bank of its own.
        frozen: whether the items stay as they were at the start, a control.
    """

    items: int
    rates: partition.Rates
    rule: Rule | Weigh = addressing.threshold
    temperature: float = 1.0
    init_scale: float = 1.0
    similarity: str = "cosine"
    learned_temperature: bool = False
    groups: partition.Rates = (1, 1, 1)
    frozen: bool = False

    @nn.compact
    def __call__(
        self,
        feature_map: jax.Array,
        return_weights: bool = False,
        *,
        train: bool = False,
        update: bool = False,
    ) -> tuple[jax.Array, MemoryRead, BatchSummary]:
        """Passes ``(B, H, W, C)`` through the memory.

        Args:
            feature_map: what is divided into queries.
            return_weights: whether the reads hold their weights.
            train: whether a rule with noise draws it, from the stream "memory".
            update: whether the rule's state moves on (apply with ``mutable=["memory"]``).

        Returns:
            The assembled map ``(B, H, W, C)``, the reads with leading axes ``(B, Q)``, and what
            they come to.
        """
        rule = addressing.as_rule(self.rule)
        queries = partition.divide(layers.at_least_float32(feature_map), self.rates)
        own_state = rule.init_state is not None
        items, state = self._items_and_state(rule, queries)
        params = self._params(rule, items)
        banks = math.prod(self.groups)
        if banks > 1:
            queries = partition.group(queries, self.rates, self.groups)
        keys = None
        if train and rule.needs_key and not self.is_initializing():
            keys = jax.random.split(self.make_rng("memory"), queries.shape[:-1])
        read_bank = functools.partial(self._read_bank, rule, update, return_weights)
        spread = jax.vmap(read_bank) if banks > 1 else read_bank
        reads, usage, losses, new_state = spread(queries, items, params, state, keys)
        if banks > 1:
            reads = jax.tree.map(lambda x: partition.ungroup(x, self.rates, self.groups), reads)
            usage = jax.tree.map(jnp.ravel, usage)
            losses = {name: jnp.mean(values) for name, values in losses.items()}
        if own_state and update and not self.is_initializing():
            self.put_variable("memory", "state", new_state)
        blocks = reads.block.astype(feature_map.dtype)
        assembled = partition.assemble(blocks, feature_map.shape, self.rates)
        if not return_weights:
            reads = reads._replace(weights=None)
        return assembled, reads, BatchSummary(usage, losses, weighted_loss(rule, losses))

    def _read_bank(
        self,
        rule: Rule,
        update: bool,
        keep_weights: bool,
        queries: jax.Array,
        items: jax.Array,
        params: Arrays,
        state: Arrays,
        keys: jax.Array | None,
    ) -> tuple[MemoryRead, ItemUsage, dict[str, jax.Array], Arrays]:
        """Reads ``(B, Q, D)`` from one bank; also its usage, losses and next state."""
        temperature: float | jax.Array = self.temperature
        if self.learned_temperature:
            temperature = jnp.exp(params["log_temperature"])

        def read_some(queries: jax.Array, keys: jax.Array | None) -> MemoryRead:
            return read_blocks(
                queries,
                items,
                rule,
                keys=keys,
                temperature=temperature,
                similarity=self.similarity,
                params=params,
                state=state,
                return_weights=True,
            )

        images, blocks, size = queries.shape
        updates = rule.update is not None and update
        if not (keep_weights or updates or rule.losses is not None):
            chunks = chunk_count(images, blocks, items.shape[0] * math.prod(self.groups))
            if chunks > 1:
                return *read_in_chunks(read_some, queries, keys, chunks), {}, state
        reads = read_some(queries, keys)
        assert reads.weights is not None
        weights = reads.weights.reshape(images * blocks, -1)
        batch = BatchReads(queries.reshape(-1, size), items, weights)
        losses = {} if rule.losses is None else rule.losses(batch)
        if rule.update is not None and update:
            state = rule.update(state, batch)
        return reads, item_usage(jax.lax.stop_gradient(reads.weights)), losses, state

    def _items_and_state(self, rule: Rule, queries: jax.Array) -> tuple[jax.Array, Arrays]:
        """The bank and the rule's state; several banks have a first axis of their own."""
        if rule.init_state is None:
            return self._frozen(self.param(_ITEMS, self._init_items, queries)), {}
        if not keeps_items(rule, (self.items, queries.shape[-1])):
            items = self._frozen(self.param(_ITEMS, self._init_items, queries))
            return items, self.variable("memory", "state", self._init_state, rule, items).value

        def make() -> dict[str, jax.Array]:
            return self._init_state(rule, self._init_items(self.make_rng("params"), queries))

        state = self.variable("memory", "state", make).value
        return state[_ITEMS], state

    def _frozen(self, items: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(items) if self.frozen else items

    def _params(self, rule: Rule, items: jax.Array) -> dict[str, jax.Array]:
        """What is learned beside the items, by name."""
        params: dict[str, jax.Array] = {}
        banks = math.prod(self.groups)
        if self.learned_temperature:
            start = jnp.log(jnp.asarray(self.temperature, jnp.float32))
            shape = () if banks == 1 else (banks,)
            params["log_temperature"] = self.param(
                "log_temperature", lambda key: jnp.full(shape, start)
            )
        if rule.init_params is not None:
            params |= self.param("rule", self._init_params, rule, items)
        return params

    def _init_params(self, key: jax.Array, rule: Rule, items: jax.Array) -> dict[str, jax.Array]:
        assert rule.init_params is not None
        if items.ndim == 2:
            return rule.init_params(key, items)
        return jax.vmap(rule.init_params)(jax.random.split(key, items.shape[0]), items)

    def _init_state(self, rule: Rule, items: jax.Array) -> dict[str, jax.Array]:
        assert rule.init_state is not None
        return rule.init_state(items) if items.ndim == 2 else jax.vmap(rule.init_state)(items)

    def _init_items(self, key: jax.Array, queries: jax.Array) -> jax.Array:
        scale = self.init_scale * jnp.sqrt(jnp.mean(jnp.square(queries)))
        banks = math.prod(self.groups)
        shape = (self.items, queries.shape[-1])
        return scale * jax.random.normal(
            key, shape if banks == 1 else (banks, *shape), queries.dtype
        )


def weighted_loss(rule: Rule, losses: dict[str, jax.Array]) -> jax.Array | None:
    """The sum of a rule's losses by its weights, or None where it has none."""
    if not losses:
        return None
    weights = dict(rule.loss_weights)
    return sum((weights.get(name, 1.0) * loss for name, loss in losses.items()), jnp.zeros(()))


def keeps_items(rule: Rule, shape: tuple[int, int]) -> bool:
    """Whether the rule's items, ``(N, D)`` of that shape, are state, which no gradient moves."""
    if rule.init_state is None:
        return False
    return _ITEMS in jax.eval_shape(rule.init_state, jax.ShapeDtypeStruct(shape, jnp.float32))
