"""What every addressing rule must hold to, and what it declares: for the tests, and for one's own.

``contract.check(rule)`` raises an `AssertionError` that says what does not hold. The sizes are
small, so that it takes seconds.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from daad_jax.addressing.interface import (
    DIAGNOSTICS,
    Answer,
    BatchReads,
    Request,
    Rule,
    Weigh,
    as_rule,
)
from daad_jax.addressing.similarity import SIMILARITIES

_KEY = jax.random.key(5)
_ITEMS, _SIZE = 16, 6  # a square and an even number, as product keys need
_COLD = 1e-4


def check(rule: Rule | Weigh) -> None:
    """Runs every check of `CHECKS` with every similarity.

    Args:
        rule: a `Rule`, or a function of the similarities.

    Raises:
        AssertionError: if one does not hold.
    """
    for name, function in CHECKS.items():
        for similarity in SIMILARITIES:
            try:
                function(as_rule(rule), similarity)
            except AssertionError as error:
                raise AssertionError(f"{name} ({similarity}): {error}") from error
            except Exception as error:
                raise AssertionError(f"{name} ({similarity}): it fails: {error!r}") from error


def bank(count: int = _ITEMS, dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array]:
    """Queries ``(6, 6)``, the last one zero, and items ``(count, 6)``: random, always the same."""
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
    params: dict[str, jax.Array] | None = None,
) -> Answer:
    """One read of a rule at its start: its own initial parameters and state.

    Args:
        rule: the rule.
        query: ``(D,)``.
        items: ``(N, D)``.
        similarity: one of `daad_jax.addressing.SIMILARITIES`.
        temperature: what the similarities are divided by.
        key: of its noise, or None.
        params: instead of the initial ones.
    """
    compare = SIMILARITIES[similarity]
    if params is None:
        params = initial_params(rule, items)
    state = {} if rule.init_state is None else rule.init_state(items)
    return rule.read(
        Request(
            query,
            state.get("memory_items", items),
            lambda one, many: compare(one, many) / temperature,
            params,
            state,
            key,
        )
    )


@functools.lru_cache(maxsize=8)
def _compiled(rule: Rule, similarity: str) -> Callable[..., Answer]:
    def one(query: jax.Array, items: jax.Array, temperature: jax.Array, key: Any) -> Answer:
        return read(rule, query, items, similarity=similarity, temperature=temperature, key=key)

    return jax.jit(jax.vmap(one, in_axes=(0, None, None, 0)))


def _reads(
    rule: Rule,
    queries: jax.Array,
    items: jax.Array,
    similarity: str,
    temperature: float = 1.0,
    keys: jax.Array | None = None,
) -> Answer:
    """All reads of queries ``(M, D)``, compiled once for each shape."""
    cooled = jnp.asarray(temperature, queries.dtype)
    return _compiled(rule, similarity)(queries, items, cooled, keys)


def initial_params(rule: Rule, items: jax.Array) -> dict[str, jax.Array]:
    """What a rule learns beside the items, at its start."""
    return {} if rule.init_params is None else rule.init_params(_KEY, items)


def sums_as_declared(rule: Rule, similarity: str) -> None:
    """Weights are not negative and sum to what the rule declares; so too for a bank of one item."""
    for count in (_ITEMS, 1):
        queries, items = bank(count)
        for temperature in (1.0, 0.1):
            weights = _reads(rule, queries, items, similarity, temperature).weights
            assert weights.shape == (len(queries), count), f"weights are {weights.shape[1:]}"
            for row in weights:
                _check_total(rule, row, 1e-5)


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
    """By query, items and parameters: also for zeros, equal items and a query that is an item."""

    def total(query: jax.Array, items: jax.Array, params: Any, key: Any) -> jax.Array:
        answer = read(rule, query, items, similarity=similarity, key=key, params=params)
        return jnp.sum(jnp.square(answer.block)) + jnp.sum(jnp.square(answer.weights))

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    for count in (_ITEMS, 1):
        queries, items = bank(count)
        params = initial_params(rule, items)
        cases = {
            "random": (queries[0], items),
            "a zero query": (jnp.zeros(_SIZE), items),
            "zero items": (queries[0], jnp.zeros_like(items)),
            "equal items": (queries[0], jnp.ones_like(items)),
            "a query that is an item": (items[0], items),
            "large values": (1e3 * queries[0], items),
        }
        key = _KEY if rule.needs_key else None
        for name, (query, some) in cases.items():
            for leaf in jax.tree.leaves(gradient(query, some, params, key)):
                assert np.isfinite(leaf).all(), f"{name}: a gradient is not finite"


def weights_permute(rule: Rule, similarity: str) -> None:
    """Permuted items give permuted weights and the same block, where the rule declares it."""
    if not rule.properties.equivariant:
        return
    queries, items = bank()
    queries = queries[:-1]  # without the zero, to which all items are alike
    order = jax.random.permutation(_KEY, _ITEMS)
    plain = _reads(rule, queries, items, similarity)
    moved = _reads(rule, queries, items[order], similarity)
    _close(moved.weights, plain.weights[:, order], 1e-5, "permuted weights")
    _close(moved.block, plain.block, 1e-4, "blocks of permuted items")


def nearest_when_cold(rule: Rule, similarity: str) -> None:
    """At a temperature near 0 the most similar item is read, where the rule declares it."""
    if not rule.properties.nearest_when_cold:
        return
    queries, items = bank()
    queries = queries[:-1]
    if rule.init_state is not None:
        items = rule.init_state(items).get("memory_items", items)
    best = [int(jnp.argmax(SIMILARITIES[similarity](query, items))) for query in queries]
    weights = _reads(rule, queries, items, similarity, _COLD).weights
    _close(weights, np.eye(_ITEMS)[best], 1e-4, "weights at a low temperature")


def jit_and_vmap_agree(rule: Rule, similarity: str) -> None:
    """Compiled and spread over queries, a rule reads what it reads alone."""
    queries, items = bank()
    keys = jax.random.split(_KEY, len(queries)) if rule.needs_key else None
    together = _reads(rule, queries, items, similarity, 0.25, keys)
    alone = read(
        rule,
        queries[2],
        items,
        similarity=similarity,
        temperature=0.25,
        key=None if keys is None else keys[2],
    )
    _close(together.weights[2], alone.weights, 1e-5, "weights under jit and vmap")
    _close(together.block[2], alone.block, 1e-4, "blocks under jit and vmap")


def bfloat16_works(rule: Rule, similarity: str) -> None:
    """With bfloat16 queries and items, sums hold to its precision and a uniform row is sound."""
    queries, items = bank(dtype=jnp.bfloat16)
    answer = _reads(rule, queries, items, similarity)
    for row in answer.weights:
        _check_total(rule, row, 3e-2)
    assert np.isfinite(np.asarray(answer.block, np.float32)).all(), "a block is not finite"


def noise_is_for_training(rule: Rule, similarity: str) -> None:
    """With a key a rule with noise reads by the key; without one always the same."""
    queries, items = bank()
    keys = jax.random.split(_KEY, (2, len(queries)))
    first, second, third, fourth = (
        _reads(rule, queries, items, similarity, keys=one).weights
        for one in (keys[0], keys[1], None, None)
    )
    assert (third == fourth).all(), "two reads without a key differ"
    assert bool((first != second).any()) == rule.needs_key, "needs_key is not what the noise does"


def gradient_reaches_the_query(rule: Rule, similarity: str) -> None:
    """As if the block were the query, and not to the items, where straight-through is declared."""
    if not rule.properties.straight_through:
        return
    queries, items = bank()

    def block(query: jax.Array, items: jax.Array) -> jax.Array:
        return read(rule, query, items, similarity=similarity).block

    by_query, by_items = jax.jacobian(block, argnums=(0, 1))(queries[0], items)
    _close(by_query, np.eye(_SIZE), 1e-6, "the block's gradient by the query")
    _close(by_items, np.zeros(by_items.shape), 0.0, "its gradient by the items and zero")


def losses_and_state_are_sound(rule: Rule, similarity: str) -> None:
    """Losses are finite with finite gradients; the next state has the shapes of the one before."""
    for count in (_ITEMS, 1):
        queries, items = bank(count)
        units = jnp.eye(count, _SIZE)
        for some, bank_of_them in ((queries, items), (units, units), (0 * queries, 0 * items)):
            _check_losses(rule, some, bank_of_them, similarity)
        if rule.init_state is None or rule.update is None:
            continue
        state = rule.init_state(items)
        weights = _reads(rule, queries, items, similarity).weights
        new = jax.jit(rule.update)(state, BatchReads(queries, items, weights))
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, dict(state)), "shapes"
        for name, value in new.items():
            assert value.dtype == jnp.float32, f"{name}: state is float32, not {value.dtype}"
            assert np.isfinite(value).all(), f"{name} is not finite"


def _check_losses(rule: Rule, queries: jax.Array, items: jax.Array, similarity: str) -> None:
    if rule.losses is None:
        return

    def losses(queries: jax.Array, items: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        assert rule.losses is not None
        weights = _reads(rule, queries, items, similarity).weights
        values = rule.losses(BatchReads(queries, items, weights))
        return sum(values.values(), jnp.zeros(())), values

    compiled = jax.jit(jax.grad(losses, argnums=(0, 1), has_aux=True))
    gradients, values = compiled(queries, items)
    for name, value in values.items():
        assert name not in DIAGNOSTICS, f"{name} is also what a diagnostic is called"
        assert np.isfinite(value), f"{name} is not finite"
    assert all(np.isfinite(one).all() for one in gradients), "a loss's gradient is not finite"


def _close(got: Any, wanted: Any, tolerance: float, what: str) -> None:
    difference = np.abs(np.asarray(got, np.float64) - np.asarray(wanted, np.float64)).max()
    assert difference <= tolerance, f"{what} differ by {difference:.2g}"


CHECKS: dict[str, Callable[[Rule, str], None]] = {
    function.__name__: function
    for function in (
        sums_as_declared,
        gradients_are_finite,
        weights_permute,
        nearest_when_cold,
        jit_and_vmap_agree,
        bfloat16_works,
        noise_is_for_training,
        gradient_reaches_the_query,
        losses_and_state_are_sound,
    )
}
