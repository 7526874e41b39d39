import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import addressing, memory
from daad_jax.errors import ConfigError

KEY = jax.random.key(3)
QUERY = jax.random.normal(KEY, (6,))
ITEMS = jax.random.normal(jax.random.fold_in(KEY, 1), (10, 6))


def numpy_softmax_weights(query, items, temperature=1.0):
    query, items = np.asarray(query, np.float64), np.asarray(items, np.float64)
    cosine = items @ query / (np.linalg.norm(items, axis=1) * np.linalg.norm(query))
    exponentials = np.exp(cosine / temperature)
    return exponentials / exponentials.sum()


def numpy_threshold_weights(query, items, temperature=1.0):
    weights = numpy_softmax_weights(query, items, temperature)
    return np.where(weights >= 1 / len(items), weights, 0.0)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_softmax_and_read_match_numpy(temperature):
    result = jax.jit(
        lambda q, m: memory.read(
            q, m, addressing.softmax, temperature=temperature, return_weights=True
        )
    )(QUERY, ITEMS)
    expected = numpy_softmax_weights(QUERY, ITEMS, temperature)
    np.testing.assert_allclose(result.weights, expected, rtol=1e-5)
    np.testing.assert_allclose(result.block, expected @ np.asarray(ITEMS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_threshold_read_matches_numpy(temperature):
    result = jax.jit(lambda q, m: memory.read(q, m, temperature=temperature, return_weights=True))(
        QUERY, ITEMS
    )
    expected = numpy_threshold_weights(QUERY, ITEMS, temperature)
    assert 0 < (expected == 0).sum() < 10
    np.testing.assert_allclose(result.weights, expected, rtol=1e-5)
    np.testing.assert_allclose(result.block, expected @ np.asarray(ITEMS), rtol=1e-4, atol=1e-6)
    assert result.summary.active_items == (expected > 0).sum()
    np.testing.assert_allclose(result.summary.largest_weight, expected.max(), rtol=1e-5)
    share = expected[expected > 0] / expected.sum()
    np.testing.assert_allclose(result.summary.entropy, -(share * np.log(share)).sum(), rtol=1e-5)
    assert result.summary.dead == 0


def test_renormalized_weights_sum_to_one():
    weights = jax.jit(addressing.threshold_renormalized)(jnp.linspace(-1, 1, 9))
    kept = addressing.threshold(jnp.linspace(-1, 1, 9))
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(weights, kept / kept.sum(), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 49, 500, 501, 1000, 4093])
def test_a_uniform_row_keeps_every_item(count):
    weights = jax.jit(addressing.threshold)(jnp.full((count,), 0.3))
    assert (weights > 0).all()


def test_rounding_does_not_drop_items_of_a_uniform_row():
    similarities = jnp.full((500,), 0.3) + jnp.tile(jnp.array([0.0, 2e-7]), 250)
    assert (addressing.softmax(similarities) < 1 / 500).any()
    assert (addressing.threshold(similarities) > 0).all()
    assert (addressing.threshold(similarities.at[0].add(-1e-3)) == 0).sum() == 1


def test_weights_only_on_request():
    assert memory.read(QUERY, ITEMS).weights is None
    blocks = memory.read_blocks(jnp.stack([QUERY, -QUERY]), ITEMS, return_weights=True)
    assert blocks.weights.shape == (2, 10)


def test_blocks_and_batch_are_vmapped_reads():
    queries = jax.random.normal(KEY, (2, 3, 6))
    together = memory.read_blocks(queries, ITEMS)
    apart = memory.read(queries[1, 2], ITEMS)
    np.testing.assert_allclose(together.block[1, 2], apart.block, rtol=1e-5, atol=1e-6)
    assert together.summary.entropy.shape == (2, 3)


def test_a_zero_query_has_finite_gradients():
    def loss(query, items):
        return jnp.sum(memory.read(query, items).block ** 2)

    grads = jax.grad(loss, argnums=(0, 1))(jnp.zeros(6), ITEMS)
    assert all(np.isfinite(grad).all() for grad in grads)
    grads = jax.grad(loss, argnums=(0, 1))(QUERY, jnp.zeros_like(ITEMS))
    assert all(np.isfinite(grad).all() for grad in grads)


def test_a_dead_read_is_counted_and_has_finite_gradients():
    def drop_all(similarities):
        weights = jax.nn.softmax(similarities)
        return jnp.where(weights > 2.0, weights, 0.0)

    result = memory.read(QUERY, ITEMS, drop_all)
    assert result.summary.dead == 1
    assert result.summary.active_items == 0
    assert result.summary.entropy == 0
    np.testing.assert_array_equal(result.block, 0)
    grads = jax.grad(lambda q, m: memory.read(q, m, drop_all).block.sum(), argnums=(0, 1))(
        QUERY, ITEMS
    )
    assert all(np.isfinite(grad).all() for grad in grads)


def test_items_start_with_the_norm_of_the_queries():
    x = 0.3 * jax.random.normal(KEY, (4, 8, 8, 16))
    module = memory.BlockMemory(items=200, rates=(2, 2, 1), init_scale=2.0)
    items = module.init(KEY, x)["params"]["memory_items"]
    queries = x.reshape(4, 2, 4, 2, 4, 16).transpose(0, 1, 3, 2, 4, 5).reshape(16, -1)
    norm = np.linalg.norm(items, axis=1).mean() / np.linalg.norm(queries, axis=1).mean()
    assert items.shape == (200, 256)
    np.testing.assert_allclose(norm, 2.0, rtol=0.02)


def test_an_unknown_rule_is_named_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"memory.addressing.*'treshold'.*'threshold'"):
        addressing.get_rule("treshold")
