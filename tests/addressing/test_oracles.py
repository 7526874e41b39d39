"""A NumPy oracle for each rule, its losses and its update, under `jit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import addressing
from daad_jax.addressing import (
    MNAD,
    RULES,
    BatchReads,
    Entmax,
    Gumbel,
    HardShrinkage,
    Hopfield,
    Mean,
    Nearest,
    NearestEMA,
    ProductKey,
    Request,
    Softmax,
    Threshold,
    ThresholdRenormalized,
    TopK,
    contract,
)
from daad_jax.errors import ConfigError
from tests.addressing.oracles import (
    ITEMS,
    KEY,
    QUERIES,
    SIMILARITIES,
    numpy_entmax,
    numpy_softmax,
    one_hot,
    unit,
    weighed,
)


def read_once(rule, query, items, compare, **rest):
    """One read under jit with a given similarity."""
    values = {"params": {}, "state": {}, "key": None} | rest
    return jax.jit(lambda: rule.read(Request(query, items, compare, **values)))()


def test_softmax_matches_numpy():
    np.testing.assert_allclose(weighed(Softmax()), numpy_softmax(SIMILARITIES), atol=1e-6)


@pytest.mark.parametrize("cut", [0.5, 1.0, 2.0])
def test_threshold_drops_weights_below_the_cut(cut):
    soft = numpy_softmax(SIMILARITIES)
    kept = np.where(soft >= cut / 40, soft, 0)
    assert (kept == 0).any()
    np.testing.assert_allclose(weighed(Threshold(cut)), kept, atol=1e-6)
    scaled = kept / np.maximum(kept.sum(-1, keepdims=True), 1e-12)
    np.testing.assert_allclose(weighed(ThresholdRenormalized(cut)), scaled, atol=1e-6)


@pytest.mark.parametrize("rule", [Threshold, ThresholdRenormalized, HardShrinkage])
def test_a_cut_above_every_weight_gives_zero_weights(rule):
    np.testing.assert_array_equal(rule(cut=1.5).weigh(jnp.zeros(8), {}), 0.0)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 49, 500, 501, 1000, 4093])
def test_threshold_keeps_every_item_of_a_uniform_row(count):
    weights = jax.jit(lambda s: Threshold().weigh(s, {}))(jnp.full((count,), 0.3))
    assert (weights > 0).all()


def test_rounding_does_not_drop_items_of_a_uniform_row():
    similarities = jnp.full((500,), 0.3) + jnp.tile(jnp.array([0.0, 2e-7]), 250)
    assert (Softmax().weigh(similarities, {}) < 1 / 500).any()
    assert (Threshold().weigh(similarities, {}) > 0).all()
    assert (Threshold().weigh(similarities.at[0].add(-1e-3), {}) == 0).sum() == 1


def test_bfloat16_keeps_every_item_of_a_uniform_row():
    # Neither 1/10 nor 1/499 is exact in bfloat16.
    for count in (10, 499):
        weights = Threshold().weigh(jnp.zeros(count, jnp.bfloat16), {})
        assert weights.dtype == jnp.bfloat16
        assert (weights > 0).all()


@pytest.mark.parametrize("rule", [Threshold(), HardShrinkage()])
def test_double_precision_is_kept(rule):
    with jax.enable_x64(True):
        similarities = np.random.default_rng(0).normal(size=20)
        weights = rule.weigh(jnp.asarray(similarities), {})
        expected = np.exp(similarities) / np.exp(similarities).sum()
        kept = weights > 0
        assert weights.dtype == jnp.float64
        if isinstance(rule, Threshold):
            np.testing.assert_allclose(weights[kept], expected[kept], rtol=1e-13)
        else:
            shrunk = np.where(expected > 1 / 20, expected, 0.0)
            np.testing.assert_allclose(weights, shrunk / shrunk.sum(), rtol=1e-9)


@pytest.mark.parametrize("cut", [1.0, 2.0, 3.0])
def test_hard_shrinkage_and_its_entropy_match_memae(cut):
    soft, level = numpy_softmax(SIMILARITIES), cut / 40
    shrunk = np.maximum(soft - level, 0) * soft / (np.abs(soft - level) + 1e-12)
    shrunk /= np.maximum(shrunk.sum(-1, keepdims=True), 1e-12)
    got = weighed(HardShrinkage(cut))
    np.testing.assert_allclose(got, shrunk, atol=1e-6)
    entropy = np.mean([-sum(w * np.log(w) for w in row if w > 0) for row in shrunk])
    reads = BatchReads(jnp.zeros((6, 3)), jnp.zeros((40, 3)), jnp.asarray(got))
    losses = jax.jit(HardShrinkage(cut).losses)(reads)
    np.testing.assert_allclose(losses["entropy_loss"], entropy, atol=1e-6)


def test_top_k_is_a_softmax_over_the_k_best():
    expected = np.zeros_like(SIMILARITIES, np.float64)
    for row, x in zip(expected, SIMILARITIES, strict=True):
        best = np.argsort(-x)[:3]
        row[best] = numpy_softmax(x[best])
    np.testing.assert_allclose(weighed(TopK(3)), expected, atol=1e-6)


def test_mean_weighs_all_items_equally():
    np.testing.assert_allclose(weighed(Mean()), 1 / 40, rtol=1e-6)


def gumbel_weights(rule, similarities, steps, key=None):
    state = {"steps": jnp.float32(steps)}
    items = jnp.zeros((len(similarities), 2))
    compare = lambda query, items: jnp.asarray(similarities, jnp.float32)  # noqa: E731
    return read_once(rule, jnp.zeros(2), items, compare, state=state, key=key).weights


def test_gumbel_adds_noise_and_follows_its_schedule():
    rule, x = Gumbel(start=2.0, end=0.25, rate=0.1), SIMILARITIES[1]
    for steps, temperature in ((0, 2.0), (10, 2 * np.exp(-1)), (1e4, 0.25)):
        got = gumbel_weights(rule, x, steps)
        np.testing.assert_allclose(got, numpy_softmax(x / temperature), atol=1e-6)
    noise = np.asarray(jax.random.gumbel(KEY, (40,)))
    got = gumbel_weights(rule, x, 10, KEY)
    np.testing.assert_allclose(got, numpy_softmax((x + noise) / (2 * np.exp(-1))), atol=1e-6)
    assert rule.update({"steps": jnp.float32(4.0)}, None) == {"steps": 5.0}


def test_similarities_match_numpy():
    q, m = QUERIES[0], ITEMS
    expected = {
        "cosine": m @ q / (np.linalg.norm(m, axis=1) * np.linalg.norm(q)),
        "dot": m @ q / np.sqrt(6),
        "distance": -((m - q) ** 2).sum(1),
    }
    assert set(expected) == set(addressing.SIMILARITIES)
    for name, values in expected.items():
        got = jax.jit(addressing.get_similarity(name))(q, m)
        np.testing.assert_allclose(got, values, rtol=1e-4, atol=1e-5)
    short = addressing.cosine(1e-6 * q, 1e-6 * m)
    np.testing.assert_allclose(short, expected["cosine"], rtol=1e-4, atol=1e-5)


def test_an_unknown_similarity_is_a_config_error():
    with pytest.raises(ConfigError, match="memory.similarity: no similarity 'cos'.*'cosine'"):
        addressing.get_similarity("cos")


def numpy_reads():
    """Nearest reads of `QUERIES` by distance: the chosen items and the reads."""
    chosen = ((QUERIES[:, None] - ITEMS[None]) ** 2).sum(-1).argmin(1)
    return chosen, BatchReads(
        jnp.asarray(QUERIES), jnp.asarray(ITEMS), jnp.asarray(one_hot(chosen, 9))
    )


def test_nearest_and_its_losses_match_vq_vae():
    chosen, reads = numpy_reads()
    rule = Nearest()
    for index, query in enumerate(QUERIES[:5]):
        answer = contract.read(rule, jnp.asarray(query), jnp.asarray(ITEMS), similarity="distance")
        np.testing.assert_array_equal(answer.weights, one_hot(chosen[index], 9))
        np.testing.assert_allclose(answer.block, ITEMS[chosen[index]], rtol=1e-6)
    error = np.mean((QUERIES - ITEMS[chosen]) ** 2)
    losses = jax.jit(rule.losses)(reads)
    np.testing.assert_allclose(losses["codebook_loss"], error, rtol=1e-5)
    np.testing.assert_allclose(losses["commitment_loss"], error, rtol=1e-5)
    by_query = jax.grad(lambda q, name: rule.losses(reads._replace(queries=q))[name])
    by_item = jax.grad(lambda m, name: rule.losses(reads._replace(items=m))[name])
    assert not np.any(by_query(reads.queries, "codebook_loss"))
    assert not np.any(by_item(reads.items, "commitment_loss"))
    expected = 2 * (QUERIES - ITEMS[chosen]) / QUERIES.size
    np.testing.assert_allclose(by_query(reads.queries, "commitment_loss"), expected, atol=1e-6)


def test_moving_averages_match_vq_vae():
    chosen, reads = numpy_reads()
    rule = NearestEMA(decay=0.9)
    state, count, total = rule.init_state(reads.items), np.ones(9), ITEMS.copy()
    for _ in range(3):
        state = jax.jit(rule.update)(state, reads)
        for item in range(9):
            count[item] = 0.9 * count[item] + 0.1 * (chosen == item).sum()
            total[item] = 0.9 * total[item] + 0.1 * QUERIES[chosen == item].sum(0)
    np.testing.assert_allclose(state["memory_items"], total / count[:, None], rtol=1e-4, atol=1e-6)
    by_queries = jax.grad(lambda q: rule.update(state, reads._replace(queries=q))["total"].sum())
    assert not np.any(by_queries(reads.queries))  # the state has no gradient
    idle = {"memory_items": reads.items, "count": jnp.zeros(9), "total": jnp.zeros((9, 6))}
    kept = rule.update(idle, reads._replace(weights=0 * reads.weights))
    np.testing.assert_array_equal(kept["memory_items"], reads.items)


@pytest.mark.parametrize("name", RULES)
def test_the_gradient_by_an_item_is_its_weight(name):
    rule, direction = RULES[name](), jnp.arange(6.0)
    query, items = jnp.asarray(QUERIES[0], jnp.float32), jnp.asarray(ITEMS, jnp.float32)
    params, state = rule.init_params(KEY, items), rule.init_state(items)

    def read(items):  # with similarities that do not depend on the items
        fixed = Request(
            query, items, lambda q, m: jnp.sin(jnp.arange(len(m)) + q[0]), params, state, None
        )
        answer = rule.read(fixed)
        return answer.block @ direction, answer.weights

    gradient, weights = jax.jit(jax.grad(read, has_aux=True))(items)
    # With a straight-through gradient the reconstruction moves no item.
    share = 0 * weights if rule.properties.straight_through else weights
    np.testing.assert_allclose(gradient, np.outer(share, direction), atol=1e-6)


def hopfield_weights(query, temperature):
    block = query
    for _ in range(3):
        units, length = unit(ITEMS), np.linalg.norm(block)
        weights = numpy_softmax(units @ block / length / temperature)
        block = weights @ ITEMS
    return weights


@pytest.mark.parametrize(
    "rule",
    [
        Threshold(cut=2.5),
        ThresholdRenormalized(cut=2.5),
        HardShrinkage(cut=2.5),
        TopK(k=2),
        Entmax(alpha=1.2),
        Gumbel(start=3.0),
        Hopfield(steps=3),
    ],
    ids=str,
)
def test_a_rule_reads_by_its_hyperparameters(rule):
    query, items = jnp.asarray(QUERIES[0]), jnp.asarray(ITEMS)
    got = contract.read(rule, query, items, temperature=0.4).weights
    x = unit(ITEMS) @ unit(QUERIES[0]) / 0.4
    kept = np.where(numpy_softmax(x) >= 2.5 / 9, numpy_softmax(x), 0)
    best = np.where(x >= np.sort(x)[-2], x, -np.inf)
    expected = {
        Threshold: lambda: kept,
        ThresholdRenormalized: lambda: kept / kept.sum(),
        HardShrinkage: lambda: kept / kept.sum(),
        TopK: lambda: numpy_softmax(best),
        Entmax: lambda: numpy_entmax(x, 1.2),
        Gumbel: lambda: numpy_softmax(x / 3),
        Hopfield: lambda: hopfield_weights(QUERIES[0], 0.4),
    }[type(rule)]()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_hopfield_repeats_the_softmax_read():
    state = QUERIES[0]
    for _ in range(3):
        weights = numpy_softmax(4 * ITEMS @ state)
        state = weights @ ITEMS
    got = read_once(Hopfield(3), QUERIES[0], ITEMS, lambda query, items: 4 * items @ query)
    np.testing.assert_allclose(got.weights, weights, atol=1e-5)
    np.testing.assert_allclose(got.block, state, atol=1e-5)


def test_product_keys_match_a_search_by_halves():
    rng = np.random.default_rng(0)
    subkeys, query, values = (
        rng.normal(size=(2, 5, 4)),
        rng.normal(size=8),
        rng.normal(size=(25, 8)),
    )
    first, second = subkeys[0] @ query[:4], subkeys[1] @ query[4:]
    # Lample et al. take the best sub-keys of each half, then the best of their pairs.
    pairs = [(i, j) for i in np.argsort(-first)[:3] for j in np.argsort(-second)[:3]]
    best = sorted(pairs, key=lambda pair: -(first[pair[0]] + second[pair[1]]))[:3]
    expected = np.zeros(25)
    sums = np.array([first[i] + second[j] for i, j in best])
    expected[[i * 5 + j for i, j in best]] = numpy_softmax(sums)
    params = {"subkeys": jnp.asarray(subkeys)}
    answer = read_once(ProductKey(3), query, values, lambda q, m: m @ q, params=params)
    np.testing.assert_allclose(answer.weights, expected, atol=1e-6)
    np.testing.assert_allclose(answer.block, expected @ values, atol=1e-5)


def test_mnad_reads_items_of_length_one():
    for query in QUERIES:
        weights = numpy_softmax(unit(ITEMS) @ unit(query) / 0.3)
        got = contract.read(MNAD(), jnp.asarray(query), jnp.asarray(ITEMS), temperature=0.3)
        np.testing.assert_allclose(got.weights, weights, atol=1e-5)
        np.testing.assert_allclose(got.block, weights @ unit(ITEMS), atol=1e-5)


def test_the_losses_of_mnad_are_distances_to_the_two_nearest_items():
    queries, items = unit(QUERIES), unit(ITEMS)
    order = np.argsort(-queries @ items.T, axis=1)
    near, far = (np.linalg.norm(queries - items[order[:, i]], axis=1) for i in (0, 1))
    reads = BatchReads(jnp.asarray(QUERIES), jnp.asarray(items), jnp.zeros((30, 9)))
    losses = jax.jit(MNAD(margin=0.3).losses)(reads)
    np.testing.assert_allclose(losses["compactness_loss"], near.mean(), rtol=1e-5)
    expected = np.maximum(near - far + 0.3, 0).mean()
    np.testing.assert_allclose(losses["separateness_loss"], expected, rtol=1e-5)
    assert expected != pytest.approx(np.maximum(near - far + 1, 0).mean())


def test_the_update_of_mnad_matches_the_paper():
    queries, items = unit(QUERIES[:6]), unit(ITEMS)
    products = queries @ items.T
    vertical = np.exp(products) / np.exp(products).sum(0)
    expected = items.copy()
    for item in range(9):
        chosen = np.flatnonzero(products.argmax(1) == item)
        if len(chosen):
            share = vertical[chosen, item] / vertical[chosen, item].max()
            expected[item] += share @ queries[chosen]
    state = {"memory_items": jnp.asarray(ITEMS)}
    reads = BatchReads(jnp.asarray(QUERIES[:6]), state["memory_items"], jnp.zeros((6, 9)))
    # Under jit a product with a one-hot matrix becomes a selection, which would hide an infinity.
    for update in (jax.jit(MNAD().update), MNAD().update):
        got = update(state, reads)["memory_items"]
        np.testing.assert_allclose(got, unit(expected), atol=1e-6)
    assert len(set(products.argmax(1))) < 9
