"""`BlockMemory`: a block-wise memory between two feature maps of one shape (Section 3.1.2)."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax import addressing
from daad_jax.addressing import BatchReads, Compare, ItemUsage, MemoryRead, Rule, Threshold, cosine
from daad_jax.models import blocks, layers

ITEMS = "memory_items"
"""Name of the items among the parameters of a memory, or in the state of its rule."""

Arrays = dict[str, jax.Array]


class BatchSummary(NamedTuple):
    """Summary of one memory over a batch.

    `usage` counts all reads, with the items of all banks concatenated. `losses` are the rule's
    losses by name, scalars averaged over the banks. `loss` is their weighted sum, or None for a
    rule without losses.
    """

    usage: ItemUsage
    losses: Arrays
    loss: jax.Array | None


class BlockMemory(nn.Module):
    """Divides a map into blocks, reads each from a bank of items, and assembles the results.

    Attributes:
        items: N, the number of items of each bank.
        rates: division rates ``(r_h, r_w, r_c)``; the map is divided into ``Q = r_h r_w r_c``
            blocks.
        rule: the addressing rule.
        similarity: similarity function, ``(D,), (N, D) -> (N,)``.
        temperature: divides the similarities before the rule weighs them; above 0.
        init_scale: initial norm of an item, relative to the root mean square of the norms of the
            queries of the images that `init` gets.
        learned_temperature: whether each bank learns its temperature; `temperature` is the start.
        groups: ``(g_h, g_w, g_c)``, the number of groups of block positions along each axis; each
            of the ``G = g_h g_w g_c`` groups has a bank of its own.
        frozen: whether the items keep their initial values.
        chunk_bytes: largest size in bytes of the addressing weights that exist at once, over the
            whole batch and all devices. Larger reads are done in chunks; 0 never divides.
        chunk_images: the number of images that chunks are made for; 0 is that of the batch. An
            exported function whose batch is not known needs it.
    """

    items: int
    rates: blocks.Rates
    rule: Rule = Threshold()
    similarity: Compare = cosine
    temperature: float = 1.0
    init_scale: float = 1.0
    learned_temperature: bool = False
    groups: blocks.Rates = (1, 1, 1)
    frozen: bool = False
    chunk_bytes: int = 0
    chunk_images: int = 0

    @nn.compact
    def __call__(
        self, feature_map: jax.Array, return_weights: bool = False, *, train: bool = False
    ) -> tuple[jax.Array, MemoryRead, BatchSummary]:
        """Replaces each block of a map by the block that is read for it.

        Args:
            feature_map: ``(B, H, W, C)``, any range.
            return_weights: whether the reads hold their weights. The reads are then never divided
                into chunks.
            train: whether a rule with noise draws it from the random stream "memory", and the
                rule's state is updated (apply with ``mutable=["memory"]``).

        Returns:
            The assembled map ``(B, H, W, C)`` in the dtype of the input, the reads with leading
            axes ``(B, Q)``, and the summary of the batch.
        """
        queries = self.queries(feature_map)
        items, state = self._items_and_state(queries)
        params = self._params(items)
        if self._banks > 1:
            queries = blocks.group(queries, self.rates, self.groups)
        training = train and not self.is_initializing()
        keys = None
        if training and self.rule.needs_key:
            keys = jax.random.split(self.make_rng("memory"), queries.shape[:-1])
        read_bank = self._over_banks(functools.partial(self._read_bank, return_weights, training))
        reads, usage, losses, new_state = read_bank(queries, items, params, state, keys)
        if self._banks > 1:
            reads = jax.tree.map(lambda x: blocks.ungroup(x, self.rates, self.groups), reads)
            usage = jax.tree.map(jnp.ravel, usage)
            losses = {name: jnp.mean(values) for name, values in losses.items()}
        if training and state:
            self.put_variable("memory", "state", new_state)
        assembled = blocks.assemble(
            reads.block.astype(feature_map.dtype), feature_map.shape, self.rates
        )
        return assembled, reads, BatchSummary(usage, losses, _weighted_loss(self.rule, losses))

    def queries(self, feature_map: jax.Array) -> jax.Array:
        """Divides a map ``(B, H, W, C)`` into blocks ``(B, Q, D)``: the queries of `__call__`.

        They are float32 even for a bfloat16 map. The method needs no variables, so it can be called
        on an unbound module.
        """
        return blocks.divide(layers.at_least_float32(feature_map), self.rates)

    @property
    def _banks(self) -> int:
        return math.prod(self.groups)

    def _over_banks(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Maps a function over the first axis of its arguments if there are several banks."""
        return jax.vmap(function) if self._banks > 1 else function

    def _read_bank(
        self,
        return_weights: bool,
        update: bool,
        queries: jax.Array,
        items: jax.Array,
        params: Arrays,
        state: Arrays,
        keys: jax.Array | None,
    ) -> tuple[MemoryRead, ItemUsage, Arrays, Arrays]:
        """Reads one bank with queries ``(B, Q, D)``; also returns its use, losses and new state."""
        temperature: float | jax.Array = self.temperature
        if self.learned_temperature:
            temperature = jnp.exp(params["log_temperature"])

        def read_some(queries: jax.Array, keys: jax.Array | None) -> MemoryRead:
            return addressing.read_batch(
                queries,
                items,
                self.rule,
                keys=keys,
                similarity=self.similarity,
                temperature=temperature,
                params=params,
                state=state,
            )

        count, number, size = queries.shape
        if not (return_weights or self.rule.reads_whole_batch):
            chunks = addressing.chunk_count(
                self.chunk_images or count, number, self.items * self._banks, self.chunk_bytes
            )
            if chunks > 1:
                return *addressing.read_in_chunks(read_some, queries, keys, chunks), {}, state
        reads = read_some(queries, keys)
        weights = reads.weights
        assert weights is not None
        batch = BatchReads(queries.reshape(-1, size), items, weights.reshape(-1, self.items))
        losses = self.rule.losses(batch)
        new_state = self.rule.update(state, batch) if update else state
        usage = addressing.item_usage(jax.lax.stop_gradient(weights))
        return (reads if return_weights else reads._replace(weights=None)), usage, losses, new_state

    def _items_and_state(self, queries: jax.Array) -> tuple[jax.Array, Arrays]:
        """The items ``(N, D)`` and the rule's state; a first axis G is added for several banks."""
        init_items = functools.partial(self._init_items, queries)
        init_state = self._over_banks(self.rule.init_state)
        shape = jax.ShapeDtypeStruct((self.items, queries.shape[-1]), queries.dtype)
        names = jax.eval_shape(self.rule.init_state, shape)
        if ITEMS in names:
            state = self.variable(
                "memory", "state", lambda: init_state(init_items(self.make_rng("params")))
            ).value
            return state[ITEMS], state
        items = self.param(ITEMS, init_items)
        if self.frozen:
            items = jax.lax.stop_gradient(items)
        state = self.variable("memory", "state", init_state, items).value if names else {}
        return items, state

    def _init_items(self, queries: jax.Array, key: jax.Array) -> jax.Array:
        scale = self.init_scale * jnp.sqrt(jnp.mean(jnp.square(queries)))
        lead = () if self._banks == 1 else (self._banks,)
        shape = (*lead, self.items, queries.shape[-1])
        return scale * jax.random.normal(key, shape, queries.dtype)

    def _params(self, items: jax.Array) -> Arrays:
        """The learned arrays besides the items, by name."""
        params: Arrays = {}
        if self.learned_temperature:
            start = jnp.log(jnp.asarray(self.temperature, jnp.float32))
            shape = () if self._banks == 1 else (self._banks,)
            params["log_temperature"] = self.param(
                "log_temperature", lambda key: jnp.full(shape, start)
            )
        bank = jax.ShapeDtypeStruct(items.shape[-2:], items.dtype)
        if jax.eval_shape(self.rule.init_params, jax.random.key(0), bank):
            params |= self.param("rule", self._init_params, items)
        return params

    def _init_params(self, key: jax.Array, items: jax.Array) -> Arrays:
        keys = key if self._banks == 1 else jax.random.split(key, self._banks)
        params: Arrays = self._over_banks(self.rule.init_params)(keys, items)
        return params


def _weighted_loss(rule: Rule, losses: Arrays) -> jax.Array | None:
    if not losses:
        return None
    weights = rule.loss_weights()
    return sum((weights.get(name, 1.0) * loss for name, loss in losses.items()), jnp.zeros(()))
