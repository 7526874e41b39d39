"""Checks that every addressing rule must pass, for the tests and for rules of your own.

``contract.check(rule)`` raises an AssertionError that says which check fails. The arrays are small,
so it takes seconds.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from daad_jax.addressing.read import MemoryRead
from daad_jax.addressing.read import read as read_items
from daad_jax.addressing.rule import DIAGNOSTICS, Arrays, BatchReads, Rule
from daad_jax.addressing.similarity import SIMILARITIES

_KEY = jax.random.key(5)
_ITEMS, _SIZE = 16, 6  # product keys need a square and an even number
_COLD = 1e-4


def check(rule: Rule) -> None:
    """Runs every check of `CHECKS` with every similarity.

    To check a function of the similarities, wrap it in `daad_jax.addressing.Weighing`. Raises
    AssertionError if a check fails; the message names the check and the similarity.
    """
    for name, function in CHECKS.items():
        for similarity in SIMILARITIES:
            try:
                function(rule, similarity)
            except AssertionError as error:
                raise AssertionError(f"{name} ({similarity}): {error}") from error
            except Exception as error:
                raise AssertionError(f"{name} ({similarity}): fails with {error!r}") from error


def bank(count: int = _ITEMS, dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array]:
    """Returns fixed random queries ``(6, 6)``, the last one zero, and items ``(count, 6)``."""
    queries = jax.random.normal(_KEY, (6, _SIZE), dtype).at[-1].set(0.0)
    return queries, jax.random.normal(jax.random.fold_in(_KEY, 1), (count, _SIZE), dtype)


def read(
    rule: Rule,
    query: jax.Array,
    items: jax.Array,
    *,
    similarity: str = "cosine",
    temperature: float | jax.Array = 1.0,
    key: jax.Array | None = None,
    params: Arrays | None = None,
) -> MemoryRead:
    """Reads the items ``(N, D)`` with one query ``(D,)`` and the rule's initial state.

    The similarity is a name of `daad_jax.addressing.SIMILARITIES`. The temperature, above 0,
    divides the similarities. Without a key the rule draws no noise. `params` replaces the rule's
    initial learned arrays.
    """
    state = rule.init_state(items)
    return read_items(
        query,
        state.get("memory_items", items),
        rule,
        similarity=SIMILARITIES[similarity],
        temperature=temperature,
        params=rule.init_params(_KEY, items) if params is None else params,
        state=state,
        key=key,
        return_weights=True,
    )


@functools.lru_cache(maxsize=8)
def _compiled(rule: Rule, similarity: str) -> Callable[..., MemoryRead]:
    def one(query: jax.Array, items: jax.Array, temperature: jax.Array, key: Any) -> MemoryRead:
        return read(rule, query, items, similarity=similarity, temperature=temperature, key=key)

    return jax.jit(jax.vmap(one, in_axes=(0, None, None, 0)))


def _reads(
    rule: Rule,
    queries: jax.Array,
    items: jax.Array,
    similarity: str,
    temperature: float = 1.0,
    keys: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Blocks ``(M, D)`` and weights ``(M, N)`` of queries ``(M, D)``, read under jit and vmap."""
    cold = jnp.asarray(temperature, queries.dtype)
    result = _compiled(rule, similarity)(queries, items, cold, keys)
    assert result.weights is not None
    return result.block, result.weights


def is_a_value(rule: Rule, similarity: str) -> None:
    """A copy of the rule is equal to it and has the same hash."""
    twin = copy.copy(rule)
    assert twin == rule, "a copy is not equal"
    assert hash(twin) == hash(rule), "a copy has another hash"


def shapes_are_right(rule: Rule, similarity: str) -> None:
    """Reads, losses and updates have the shapes that `Rule` describes."""
    Rule.check(rule, _ITEMS, _SIZE, frozen=False)


def sums_as_declared(rule: Rule, similarity: str) -> None:
    """Weights are not negative and have the declared sum, for one item and in bfloat16 too."""
    cases = ((_ITEMS, 1.0, "float32"), (_ITEMS, 0.1, "float32"), (1, 1.0, "float32"))
    for count, temperature, dtype in (*cases, (1, 0.1, "float32"), (_ITEMS, 1.0, "bfloat16")):
        queries, items = bank(count, dtype)
        blocks, weights = _reads(rule, queries, items, similarity, temperature)
        assert weights.shape == (len(queries), count), f"weights are {weights.shape[1:]}"
        assert np.isfinite(np.asarray(blocks, np.float32)).all(), "a block is not finite"
        for row in weights:
            _check_total(rule, row, 1e-5 if dtype == "float32" else 3e-2)


def _check_total(rule: Rule, weights: jax.Array, tolerance: float) -> None:
    values = np.asarray(weights, np.float64)
    total = values.sum()
    assert np.isfinite(values).all(), "a weight is not finite"
    assert (values >= 0).all(), f"a weight is {values.min()}"
    if rule.properties.total == "one":
        assert abs(total - 1) <= tolerance, f"weights sum to {total}"
    if rule.properties.total == "at_most_one":
        assert total <= 1 + tolerance, f"weights sum to {total}"
    most = rule.properties.most_active
    assert most is None or (values > 0).sum() <= most, f"{(values > 0).sum()} items are active"


def gradients_are_finite(rule: Rule, similarity: str) -> None:
    """Gradients by query, items and parameters are finite, also for zeros and equal items."""

    def total(query: jax.Array, items: jax.Array, params: Any, key: Any) -> jax.Array:
        block, _, weights = read(rule, query, items, similarity=similarity, key=key, params=params)
        assert weights is not None
        return jnp.sum(jnp.square(block)) + jnp.sum(jnp.square(weights))

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    for count in (_ITEMS, 1):
        queries, items = bank(count)
        params = rule.init_params(_KEY, items)
        cases = {
            "random": (queries[0], items),
            "a zero query": (jnp.zeros(_SIZE), items),
            "zero items": (queries[0], jnp.zeros_like(items)),
            "equal items": (queries[0], jnp.ones_like(items)),
            "a query equal to an item": (items[0], items),
            "large values": (1e3 * queries[0], items),
        }
        key = _KEY if rule.needs_key else None
        for name, (query, some) in cases.items():
            for leaf in jax.tree.leaves(gradient(query, some, params, key)):
                assert np.isfinite(leaf).all(), f"{name}: a gradient is not finite"


def weights_permute(rule: Rule, similarity: str) -> None:
    """Permuted items give permuted weights and the same block, if declared."""
    if not rule.properties.equivariant:
        return
    queries, items = bank()
    queries = queries[:-1]  # All items are equally similar to the zero query.
    order = jax.random.permutation(_KEY, _ITEMS)
    block, weights = _reads(rule, queries, items, similarity)
    moved_block, moved_weights = _reads(rule, queries, items[order], similarity)
    _close(moved_weights, weights[:, order], 1e-5, "permuted weights")
    _close(moved_block, block, 1e-4, "blocks of permuted items")


def nearest_when_cold(rule: Rule, similarity: str) -> None:
    """At a temperature near 0 a read returns the most similar item, if declared."""
    if not rule.properties.nearest_when_cold:
        return
    queries, items = bank()
    queries = queries[:-1]
    items = rule.init_state(items).get("memory_items", items)
    best = [int(jnp.argmax(SIMILARITIES[similarity](query, items))) for query in queries]
    _, weights = _reads(rule, queries, items, similarity, _COLD)
    _close(weights, np.eye(_ITEMS)[best], 1e-4, "weights at a low temperature")


def jit_and_vmap_agree(rule: Rule, similarity: str) -> None:
    """Reads under jit and vmap equal single reads without them."""
    queries, items = bank()
    keys = jax.random.split(_KEY, len(queries)) if rule.needs_key else None
    blocks, weights = _reads(rule, queries, items, similarity, 0.25, keys)
    key = None if keys is None else keys[2]
    alone = read(rule, queries[2], items, similarity=similarity, temperature=0.25, key=key)
    _close(weights[2], alone.weights, 1e-5, "weights under jit and vmap")
    _close(blocks[2], alone.block, 1e-4, "blocks under jit and vmap")


def noise_is_for_training(rule: Rule, similarity: str) -> None:
    """Reads depend on the key if ``needs_key`` is set, and are the same without a key."""
    queries, items = bank()
    keys = jax.random.split(_KEY, (2, len(queries)))
    cases = (keys[0], keys[1], None, None)
    first, second, third, fourth = (
        _reads(rule, queries, items, similarity, keys=key)[1] for key in cases
    )
    assert (third == fourth).all(), "two reads without a key differ"
    assert bool((first != second).any()) == rule.needs_key, "needs_key does not match the noise"


def gradient_reaches_the_query(rule: Rule, similarity: str) -> None:
    """The gradient of a block goes to the query unchanged and not to the items, if declared."""
    if not rule.properties.straight_through:
        return
    queries, items = bank()

    def block(query: jax.Array, items: jax.Array) -> jax.Array:
        return read(rule, query, items, similarity=similarity).block

    by_query, by_items = jax.jacobian(block, argnums=(0, 1))(queries[0], items)
    _close(by_query, np.eye(_SIZE), 1e-6, "the block's gradient by the query and the identity")
    _close(by_items, np.zeros(by_items.shape), 0.0, "the block's gradient by the items and zero")


def losses_and_state_are_sound(rule: Rule, similarity: str) -> None:
    """Losses, their gradients and the updated state are finite, and the state is float32."""
    for count in (_ITEMS, 1):
        queries, items = bank(count)
        units = jnp.eye(count, _SIZE)
        for some, bank_of_them in ((queries, items), (units, units), (0 * queries, 0 * items)):
            _check_losses(rule, some, bank_of_them, similarity)
        state = rule.init_state(items)
        _, weights = _reads(rule, queries, items, similarity)
        new = jax.jit(rule.update)(state, BatchReads(queries, items, weights))
        for name, value in new.items():
            assert value.dtype == jnp.float32, f"{name}: state is float32, not {value.dtype}"
            assert np.isfinite(value).all(), f"{name} is not finite"


def _check_losses(rule: Rule, queries: jax.Array, items: jax.Array, similarity: str) -> None:
    def losses(queries: jax.Array, items: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        _, weights = _reads(rule, queries, items, similarity)
        values = rule.losses(BatchReads(queries, items, weights))
        return sum(values.values(), jnp.zeros(())), values

    compiled = jax.jit(jax.grad(losses, argnums=(0, 1), has_aux=True))
    gradients, values = compiled(queries, items)
    for name, value in values.items():
        assert name not in DIAGNOSTICS, f"{name} is a reserved name"
        assert np.isfinite(value), f"{name} is not finite"
    assert all(np.isfinite(one).all() for one in gradients), "a loss's gradient is not finite"


def _close(got: Any, wanted: Any, tolerance: float, what: str) -> None:
    difference = np.abs(np.asarray(got, np.float64) - np.asarray(wanted, np.float64)).max()
    assert difference <= tolerance, f"{what} differ by {difference:.2g}"


CHECKS: dict[str, Callable[[Rule, str], None]] = {
    check.__name__: check
    for check in (
        is_a_value,
        shapes_are_right,
        sums_as_declared,
        gradients_are_finite,
        weights_permute,
        nearest_when_cold,
        jit_and_vmap_agree,
        noise_is_for_training,
        gradient_reaches_the_query,
        losses_and_state_are_sound,
    )
}
