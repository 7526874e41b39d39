"""The pure read, its summaries, chunks, and the precision of its products."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import addressing
from daad_jax.addressing import (
    RULES,
    SIMILARITIES,
    BatchReads,
    Entmax,
    Gumbel,
    Softmax,
    Threshold,
    Weighing,
    chunk_count,
    read,
    read_blocks,
    read_in_chunks,
)
from tests.addressing.oracles import numpy_softmax, unit

KEY = jax.random.key(3)
QUERY = jax.random.normal(KEY, (6,))
ITEMS = jax.random.normal(jax.random.fold_in(KEY, 1), (10, 6))


def numpy_softmax_weights(query, items, temperature):
    query, items = np.asarray(query, np.float64), np.asarray(items, np.float64)
    return numpy_softmax(unit(items) @ unit(query) / temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_a_softmax_read_matches_numpy(temperature):
    result = jax.jit(
        lambda q, m: read(q, m, Softmax(), temperature=temperature, return_weights=True)
    )(QUERY, ITEMS)
    expected = numpy_softmax_weights(QUERY, ITEMS, temperature)
    np.testing.assert_allclose(result.weights, expected, rtol=1e-5)
    np.testing.assert_allclose(result.block, expected @ np.asarray(ITEMS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_a_threshold_read_matches_numpy(temperature):
    result = jax.jit(lambda q, m: read(q, m, temperature=temperature, return_weights=True))(
        QUERY, ITEMS
    )
    soft = numpy_softmax_weights(QUERY, ITEMS, temperature)
    expected = np.where(soft >= 1 / 10, soft, 0.0)
    assert 0 < (expected == 0).sum() < 10
    np.testing.assert_allclose(result.weights, expected, rtol=1e-5)
    np.testing.assert_allclose(result.block, expected @ np.asarray(ITEMS), rtol=1e-4, atol=1e-6)
    assert result.summary.active_items == (expected > 0).sum()
    np.testing.assert_allclose(result.summary.largest_weight, expected.max(), rtol=1e-5)
    share = expected[expected > 0] / expected.sum()
    np.testing.assert_allclose(result.summary.entropy, -(share * np.log(share)).sum(), rtol=1e-5)
    assert result.summary.dead == 0


def test_a_read_uses_the_given_similarity():
    result = read(QUERY, ITEMS, Softmax(), similarity=addressing.distance, return_weights=True)
    expected = numpy_softmax(-np.sum(np.square(np.asarray(ITEMS) - np.asarray(QUERY)), axis=1))
    np.testing.assert_allclose(result.weights, expected, rtol=1e-4)


def test_weights_are_returned_on_request_only():
    assert read(QUERY, ITEMS).weights is None
    blocks = read_blocks(jnp.stack([QUERY, -QUERY]), ITEMS, return_weights=True)
    assert blocks.weights.shape == (2, 10)


def test_reads_of_blocks_and_images_equal_single_reads():
    queries = jax.random.normal(KEY, (2, 3, 6))
    together = read_blocks(queries, ITEMS)
    alone = read(queries[1, 2], ITEMS)
    np.testing.assert_allclose(together.block[1, 2], alone.block, rtol=1e-5, atol=1e-6)
    assert together.summary.entropy.shape == (2, 3)


def test_a_zero_query_and_zero_items_have_finite_gradients():
    gradient = jax.grad(lambda q, m: jnp.sum(read(q, m).block ** 2), argnums=(0, 1))
    for query, items in ((jnp.zeros(6), ITEMS), (QUERY, jnp.zeros_like(ITEMS))):
        assert all(np.isfinite(one).all() for one in gradient(query, items))


def test_a_dead_read_is_counted_and_has_finite_gradients():
    def drop_all(similarities):
        weights = jax.nn.softmax(similarities)
        return jnp.where(weights > 2.0, weights, 0.0)

    rule = Weighing(drop_all)
    result = read(QUERY, ITEMS, rule)
    assert result.summary.dead == 1
    assert result.summary.active_items == 0
    assert result.summary.entropy == 0
    np.testing.assert_array_equal(result.block, 0)
    gradient = jax.grad(lambda q, m: read(q, m, rule).block.sum(), argnums=(0, 1))
    assert all(np.isfinite(one).all() for one in gradient(QUERY, ITEMS))


def test_usage_sums_reads_by_item_and_skips_padding():
    weights = jnp.array([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.2, 0.0, 0.8]]])
    usage = addressing.item_usage(weights)
    np.testing.assert_array_equal(usage.reads, [3, 1, 2])
    np.testing.assert_allclose(usage.weight, [1.7, 0.5, 1.8], rtol=1e-6)
    usage = addressing.item_usage(weights, jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(usage.reads, [2, 1, 0])
    np.testing.assert_allclose(usage.weight, [1.5, 0.5, 0.0], rtol=1e-6)


def test_perplexity_is_the_number_of_items_in_equal_use():
    assert addressing.perplexity(jnp.zeros(4)) == 0
    even = jnp.array([2.0, 2.0, 0, 2.0])
    np.testing.assert_allclose(addressing.perplexity(even), 3.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("blocks", "most_bytes", "expected"),
    [
        (4096, 0, 1),
        (4096, 4 * 8 * 4096 * 500, 1),
        (4096, 4 * 8 * 4096 * 500 - 1, 2),
        (4096, 4 * 8 * 1024 * 500, 4),
        (12, 4 * 8 * 500 * 12 // 5, 6),  # 5 does not divide 12
        (7, 4 * 8 * 500, 7),
        (7, 1, 7),
    ],
)
def test_the_number_of_chunks_is_the_smallest_that_suffices(blocks, most_bytes, expected):
    assert chunk_count(8, blocks, 500, most_bytes) == expected


def test_chunks_divide_the_blocks_and_respect_the_limit():
    rng = np.random.default_rng(0)
    for _ in range(200):
        images, blocks, items = (int(rng.integers(1, high)) for high in (9, 300, 50))
        most = int(rng.integers(1, 2 * 4 * images * blocks * items))
        fits = [
            count
            for count in range(1, blocks + 1)
            if blocks % count == 0 and 4 * images * (blocks // count) * items <= most
        ]
        assert chunk_count(images, blocks, items, most) == (fits[0] if fits else blocks)


@pytest.mark.parametrize("rule", [Threshold(), Entmax(), Gumbel()], ids=str)
def test_reads_in_chunks_equal_undivided_reads(rule):
    queries = jax.random.normal(KEY, (2, 12, 6))
    keys = jax.random.split(KEY, (2, 12)) if rule.needs_key else None

    def some(items, queries, keys):
        state = rule.init_state(items)
        return read_blocks(queries, items, rule, keys=keys, state=state, return_weights=True)

    def whole(items, queries):
        reads = some(items, queries, keys)
        usage = addressing.item_usage(reads.weights)
        return jnp.sum(jnp.sin(reads.block)), (reads._replace(weights=None), usage)

    def divided(items, queries):
        reads, usage = read_in_chunks(functools.partial(some, items), queries, keys, 4)
        return jnp.sum(jnp.sin(reads.block)), (reads, usage)

    results = [
        jax.jit(jax.grad(function, argnums=(0, 1), has_aux=True))(ITEMS, queries)
        for function in (whole, divided)
    ]
    assert results[1][1][0].weights is None
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, results[1], results[0])


def test_reads_in_chunks_never_hold_all_weights():
    """By the compiler's memory analysis; compiled only, never run."""
    images, blocks, items, size = 2, 1024, 2000, 4
    weights = 4 * images * blocks * items

    def loss(queries, bank, count):
        some = functools.partial(read_blocks, items=bank, return_weights=True)
        reads, _ = read_in_chunks(lambda q, keys: some(q), queries, None, count)
        return jnp.sum(jnp.sin(reads.block))

    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((images, blocks, size), (items, size))
    ]

    def temporary(count):
        program = jax.jit(jax.grad(functools.partial(loss, count=count), argnums=(0, 1)))
        return program.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary(16) < weights
    assert temporary(1) > weights


def products(function, *args):
    """The matrix products in the lowered program of a function."""
    return re.findall(r".*stablehlo\.dot_general.*", jax.jit(function).lower(*args).as_text())


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("name", RULES)
def test_every_product_asks_for_the_highest_precision(name, similarity):
    """In the read, its gradient, the losses and the update."""
    rule, items = RULES[name](), jnp.ones((16, 6))
    state, params = rule.init_state(items), rule.init_params(KEY, items)

    def run(queries, items):
        compare = SIMILARITIES[similarity]
        options = {"similarity": compare, "params": params, "state": state}
        reads = read_blocks(queries, items, rule, return_weights=True, **options)
        batch = BatchReads(queries, items, reads.weights)
        losses = sum(rule.losses(batch).values(), jnp.zeros(()))
        return jnp.sum(jnp.sin(reads.block)) + losses, rule.update(state, batch)

    found = products(jax.grad(run, argnums=(0, 1), has_aux=True), jnp.ones((5, 6)), items)
    assert found
    for line in found:
        assert "precision = [HIGHEST, HIGHEST]" in line, line


def test_a_product_of_default_precision_would_be_found():
    (line,) = products(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 4)))
    assert "precision = [HIGHEST, HIGHEST]" not in line
