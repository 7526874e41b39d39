"""An independent NumPy oracle of each rule, of its losses and of its update, under `jit`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from daad_jax import addressing
from daad_jax.addressing import BatchReads, codebook, contract, dense, mnad, retrieval, simplex
from tests.fixtures import entmax_package

KEY = jax.random.key(11)
SIMILARITIES = np.asarray(
    jax.random.normal(KEY, (6, 40)) * jnp.array([[0.1], [0.5], [1], [2], [4], [9]])
)
QUERIES = np.asarray(jax.random.normal(jax.random.fold_in(KEY, 1), (30, 6)), np.float64)
ITEMS = np.asarray(jax.random.normal(jax.random.fold_in(KEY, 2), (9, 6)), np.float64)


def rows(function):
    """A rule of one row under jit and vmap on `SIMILARITIES`."""
    return np.asarray(jax.jit(jax.vmap(function))(SIMILARITIES), np.float64)


def numpy_softmax(x):
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_entmax(x, alpha):
    """By plain bisection in float64, apart from what the package does."""
    x = (alpha - 1) * np.asarray(x, np.float64)
    low, high = x.max() - 1, x.max()
    for _ in range(200):
        middle = (low + high) / 2
        above = (np.maximum(x - middle, 0) ** (1 / (alpha - 1))).sum() >= 1
        low, high = (middle, high) if above else (low, middle)
    return np.maximum(x - low, 0) ** (1 / (alpha - 1))


def one_hot(indices, count):
    return np.eye(count)[indices]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("cut", [0.5, 1.0, 2.0])
def test_threshold_drops_what_is_below_the_cut(cut):
    soft = numpy_softmax(SIMILARITIES)
    kept = np.where(soft >= cut / 40, soft, 0)
    assert (kept == 0).any()
    np.testing.assert_allclose(rows(lambda s: dense.threshold(s, cut=cut)), kept, atol=1e-6)
    scaled = kept / np.maximum(kept.sum(-1, keepdims=True), 1e-12)
    renormalized = rows(lambda s: dense.threshold_renormalized(s, cut=cut))
    np.testing.assert_allclose(renormalized, scaled, atol=1e-6)


def test_a_threshold_above_every_weight_is_a_dead_read_of_zeros():
    for rule in (dense.threshold, dense.threshold_renormalized, dense.hard_shrinkage):
        np.testing.assert_array_equal(rule(jnp.zeros(8), cut=1.5), 0.0)


@pytest.mark.parametrize("cut", [1.0, 2.0, 3.0])
def test_hard_shrinkage_and_entropy_are_memaes(cut):
    soft, level = numpy_softmax(SIMILARITIES), cut / 40
    shrunk = np.maximum(soft - level, 0) * soft / (np.abs(soft - level) + 1e-12)
    shrunk /= np.maximum(shrunk.sum(-1, keepdims=True), 1e-12)
    got = rows(lambda s: dense.hard_shrinkage(s, cut=cut))
    np.testing.assert_allclose(got, shrunk, atol=1e-6)
    entropy = np.mean([-sum(w * np.log(w) for w in row if w > 0) for row in shrunk])
    np.testing.assert_allclose(jax.jit(dense.entropy_loss)(got), entropy, atol=1e-6)


def test_top_k_is_a_softmax_over_the_best():
    expected = np.zeros_like(SIMILARITIES, np.float64)
    for row, x in zip(expected, SIMILARITIES, strict=True):
        best = np.argsort(-x)[:3]
        row[best] = numpy_softmax(x[best])
    np.testing.assert_allclose(rows(lambda s: dense.top_k(s, k=3)), expected, atol=1e-6)


def test_mean_reads_every_item_alike():
    np.testing.assert_allclose(rows(dense.mean), 1 / 40, rtol=1e-6)


def test_gumbel_adds_its_noise_and_follows_its_schedule():
    noise = jax.random.gumbel(KEY, (40,))
    expected = numpy_softmax((SIMILARITIES + np.asarray(noise)) / 0.7)
    np.testing.assert_allclose(rows(lambda s: dense.gumbel(s, 0.7, KEY)), expected, atol=1e-6)
    quiet = rows(lambda s: dense.gumbel(s, 0.7))
    np.testing.assert_allclose(quiet, numpy_softmax(SIMILARITIES / 0.7), atol=1e-6)
    steps = np.array([0.0, 10.0, 1e4])
    got = dense.gumbel_temperature(jnp.asarray(steps), start=2.0, end=0.5, rate=0.1)
    np.testing.assert_allclose(got, [2.0, 2 * np.exp(-1), 0.5], rtol=1e-6)


def test_the_gumbel_rule_draws_by_its_step():
    rule = addressing.get_rule("gumbel", addressing.DEFAULTS._replace(gumbel_rate=0.1))
    state = rule.update({"steps": jnp.float32(4.0)}, None)
    query, items = jnp.asarray(QUERIES[0]), jnp.asarray(ITEMS)
    request = addressing.Request(query, items, lambda q, m: m @ q, {}, state, None)
    expected = numpy_softmax(ITEMS @ QUERIES[0] / np.exp(-0.5))
    np.testing.assert_allclose(rule.read(request).weights, expected, atol=1e-6)


def test_sparsemax_is_optaxs_projection_and_numpys():
    got = rows(simplex.sparsemax)
    projected = jax.vmap(optax.projections.projection_simplex)(jnp.asarray(SIMILARITIES))
    np.testing.assert_allclose(got, projected, atol=1e-6)
    np.testing.assert_allclose(got, [numpy_entmax(x, 2.0) for x in SIMILARITIES], atol=1e-6)
    assert (got == 0).any()


@pytest.mark.parametrize("alpha", [1.05, 1.2, 1.5, 1.8, 2.0])
def test_entmax_is_numpys(alpha):
    expected = [numpy_entmax(x, alpha) for x in SIMILARITIES]
    got = rows(lambda s: simplex.entmax(s, alpha))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    if alpha == 1.5:
        np.testing.assert_allclose(rows(simplex.entmax15), expected, atol=1e-6)


PACKAGE = dict(np.load(entmax_package.FILE))


@pytest.mark.parametrize("name", [name for name in PACKAGE if f"{name}/by_similarities" in PACKAGE])
def test_weights_and_gradients_are_the_entmax_packages(name):
    similarities, cotangent = (
        jnp.asarray(PACKAGE[key], jnp.float32) for key in ("similarities", "cotangent")
    )
    if name.startswith("entmax "):
        alphas = jnp.full(len(similarities), float(name.split()[1]))
        got, pull = jax.vjp(jax.vmap(simplex.entmax), similarities, alphas)
        # float32: its differences are divided by (alpha - 1) ** 2.
        np.testing.assert_allclose(pull(cotangent)[1], PACKAGE[f"{name}/by_alpha"], atol=5e-5)
    else:
        got, pull = jax.vjp(jax.vmap(getattr(simplex, name)), similarities)
    np.testing.assert_allclose(got, PACKAGE[name], rtol=0, atol=1e-6)
    # At the edge of the support a slope is a small weight's small power.
    by_similarities = PACKAGE[f"{name}/by_similarities"]
    np.testing.assert_allclose(pull(cotangent)[0], by_similarities, rtol=0, atol=1e-5)


def test_what_is_kept_of_the_entmax_package_is_what_it_computes():
    pytest.importorskip("entmax")
    computed = entmax_package.compute()
    assert computed.keys() == PACKAGE.keys()
    for name, values in computed.items():
        np.testing.assert_allclose(PACKAGE[name], values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("function", ["sparsemax", "entmax15", "entmax"])
def test_gradients_of_projections_are_differences(function):
    x, direction = SIMILARITIES[1].astype(np.float64), np.linspace(-1, 1, 40)
    alpha = {"sparsemax": 2.0, "entmax15": 1.5, "entmax": 1.3}[function]
    call = {"sparsemax": simplex.sparsemax, "entmax15": simplex.entmax15}.get(
        function, lambda s: simplex.entmax(s, alpha)
    )
    _, got = jax.jvp(call, (jnp.asarray(x, jnp.float32),), (jnp.asarray(direction, jnp.float32),))
    step = 1e-6
    high, low = (numpy_entmax(x + sign * step * direction, alpha) for sign in (1, -1))
    np.testing.assert_allclose(got, (high - low) / (2 * step), atol=2e-4)


def test_the_gradient_by_alpha_is_a_difference():
    x = SIMILARITIES[2]
    got = jax.jacobian(lambda alpha: simplex.entmax(jnp.asarray(x), alpha))(1.4)
    expected = (numpy_entmax(x, 1.4 + 1e-6) - numpy_entmax(x, 1.4 - 1e-6)) / 2e-6
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_similarities_are_numpys():
    q, m = QUERIES[0], ITEMS
    expected = {
        "cosine": m @ q / (np.linalg.norm(m, axis=1) * np.linalg.norm(q)),
        "dot": m @ q / np.sqrt(6),
        "distance": -((m - q) ** 2).sum(1),
    }
    assert set(expected) == set(addressing.SIMILARITIES)
    for name, values in expected.items():
        got = jax.jit(addressing.SIMILARITIES[name])(q, m)
        np.testing.assert_allclose(got, values, rtol=1e-4, atol=1e-5)
    short = addressing.SIMILARITIES["cosine"](1e-6 * q, 1e-6 * m)
    np.testing.assert_allclose(short, expected["cosine"], rtol=1e-4, atol=1e-5)


def numpy_reads():
    """VQ reads of `QUERIES` by distance."""
    chosen = ((QUERIES[:, None] - ITEMS[None]) ** 2).sum(-1).argmin(1)
    return chosen, BatchReads(
        jnp.asarray(QUERIES), jnp.asarray(ITEMS), jnp.asarray(one_hot(chosen, 9))
    )


def test_nearest_reads_the_nearest_item_and_its_losses_are_vq_vaes():
    chosen, reads = numpy_reads()
    rule = addressing.get_rule("nearest")
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


def test_moving_averages_are_vq_vaes():
    chosen, reads = numpy_reads()
    rule = addressing.get_rule("nearest_ema", addressing.DEFAULTS._replace(ema_decay=0.9))
    state, count, total = rule.init_state(reads.items), np.ones(9), ITEMS.copy()
    for _ in range(3):
        state = jax.jit(rule.update)(state, reads)
        for item in range(9):
            count[item] = 0.9 * count[item] + 0.1 * (chosen == item).sum()
            total[item] = 0.9 * total[item] + 0.1 * QUERIES[chosen == item].sum(0)
    np.testing.assert_allclose(state["memory_items"], total / count[:, None], rtol=1e-4, atol=1e-6)
    by_queries = jax.grad(lambda q: rule.update(state, reads._replace(queries=q))["total"].sum())
    assert not np.any(by_queries(reads.queries))  # the state is moved by no gradient
    idle = {"memory_items": reads.items, "count": jnp.zeros(9), "total": jnp.zeros((9, 6))}
    kept = codebook.moved_average(idle, reads._replace(weights=0 * reads.weights), decay=0.9)
    np.testing.assert_array_equal(kept["memory_items"], reads.items)


@pytest.mark.parametrize("name", addressing.RULES)
def test_items_are_moved_by_as_much_as_they_are_read(name):
    rule, direction = addressing.get_rule(name), jnp.arange(6.0)
    query, items = jnp.asarray(QUERIES[0], jnp.float32), jnp.asarray(ITEMS, jnp.float32)
    params = contract.initial_params(rule, items)
    state = {} if rule.init_state is None else rule.init_state(items)

    def read(items):  # similarities that do not depend on the items
        fixed = addressing.Request(
            query, items, lambda q, m: jnp.sin(jnp.arange(len(m)) + q[0]), params, state, None
        )
        answer = rule.read(fixed)
        return answer.block @ direction, answer.weights

    gradient, weights = jax.jit(jax.grad(read, has_aux=True))(items)
    # Straight-through, the reconstruction moves no item.
    share = 0 * weights if rule.properties.straight_through else weights
    np.testing.assert_allclose(gradient, np.outer(share, direction), atol=1e-6)


VARIED = {
    "threshold": {"cut": 2.5},
    "threshold_renormalized": {"cut": 2.5},
    "hard_shrinkage": {"cut": 2.5},
    "top_k": {"top_k": 2},
    "entmax": {"alpha": 1.2},
    "gumbel": {"gumbel_start": 3.0},
    "hopfield": {"retrieval_steps": 3},
    "product_key": {"top_k": 2},
}


@pytest.mark.parametrize("name", VARIED)
def test_a_rule_reads_by_its_hyperparameters(name):
    query, items = jnp.asarray(QUERIES[0]), jnp.asarray(ITEMS)
    hyper = addressing.DEFAULTS._replace(**VARIED[name])
    rule = addressing.get_rule(name, hyper)
    got = contract.read(rule, query, items, temperature=0.4).weights
    x = np.asarray(addressing.SIMILARITIES["cosine"](query, items), np.float64) / 0.4
    kept = np.where(numpy_softmax(x) >= 2.5 / 9, numpy_softmax(x), 0)
    best = np.where(x >= np.sort(x)[-2], x, -np.inf)
    expected = {
        "threshold": lambda: kept,
        "threshold_renormalized": lambda: kept / kept.sum(),
        "hard_shrinkage": lambda: kept / kept.sum(),
        "top_k": lambda: numpy_softmax(best),
        "entmax": lambda: numpy_entmax(x, 1.2),
        "gumbel": lambda: numpy_softmax(x / 3),
    }
    if name in expected:
        np.testing.assert_allclose(got, expected[name](), atol=1e-5)
    elif name == "hopfield":
        state = query
        for _ in range(3):
            weights = jax.nn.softmax(addressing.SIMILARITIES["cosine"](state, items) / 0.4)
            state = weights @ items
        np.testing.assert_allclose(got, weights, atol=1e-5)
    else:
        assert (got > 0).sum() == 2


def test_alpha_and_the_temperature_end_where_they_are_told_to():
    query, items = jnp.asarray(QUERIES[0]), jnp.asarray(ITEMS)
    x = np.asarray(addressing.SIMILARITIES["cosine"](query, items), np.float64)
    hyper = addressing.DEFAULTS._replace(learned_alpha=True, alpha=1.3, gumbel_end=0.25)
    learned = addressing.get_rule("entmax", hyper)
    for logit, alpha in ((None, 1.3), (-30.0, 1.01), (30.0, 2.0)):
        params = None if logit is None else {"alpha_logit": jnp.float32(logit)}
        start = contract.initial_params(learned, items) if params is None else params
        reached = 1.01 + 0.99 * jax.nn.sigmoid(start["alpha_logit"])
        np.testing.assert_allclose(reached, alpha, atol=1e-6)
        got = contract.read(learned, query, items, params=params).weights
        np.testing.assert_allclose(got, numpy_entmax(x, alpha), atol=1e-5)
    noisy = addressing.get_rule("gumbel", hyper)
    request = addressing.Request(
        query, items, lambda q, m: jnp.asarray(x), {}, {"steps": 1e9}, None
    )
    np.testing.assert_allclose(noisy.read(request).weights, numpy_softmax(x / 0.25), atol=1e-5)


def test_mnad_reads_items_of_length_one():
    units = ITEMS / np.linalg.norm(ITEMS, axis=1, keepdims=True)
    for query in QUERIES:
        weights = numpy_softmax(units @ query / np.linalg.norm(query) / 0.3)
        got = contract.read(
            addressing.get_rule("mnad"), jnp.asarray(query), jnp.asarray(ITEMS), temperature=0.3
        )
        np.testing.assert_allclose(got.weights, weights, atol=1e-5)
        np.testing.assert_allclose(got.block, weights @ units, atol=1e-5)


def test_hopfield_repeats_the_softmax_read():
    state = QUERIES[0]
    for _ in range(3):
        weights = numpy_softmax(4 * ITEMS @ state)
        state = weights @ ITEMS
    got = jax.jit(lambda q: retrieval.hopfield(q, ITEMS, lambda a, m: 4 * m @ a, steps=3))(
        QUERIES[0]
    )
    np.testing.assert_allclose(got.weights, weights, atol=1e-5)
    np.testing.assert_allclose(got.block, state, atol=1e-5)


def test_product_keys_are_searched_by_halves():
    rng = np.random.default_rng(0)
    subkeys, query = rng.normal(size=(2, 5, 4)), rng.normal(size=8)
    first, second = subkeys[0] @ query[:4], subkeys[1] @ query[4:]
    # As Lample et al. search: the best of each half, then the best of their pairs.
    pairs = [(i, j) for i in np.argsort(-first)[:3] for j in np.argsort(-second)[:3]]
    best = sorted(pairs, key=lambda pair: -(first[pair[0]] + second[pair[1]]))[:3]
    expected = np.zeros(25)
    sums = np.array([first[i] + second[j] for i, j in best])
    expected[[i * 5 + j for i, j in best]] = numpy_softmax(sums)
    rule = addressing.get_rule("product_key", addressing.DEFAULTS._replace(top_k=3))
    values = rng.normal(size=(25, 8))
    params = {"subkeys": jnp.asarray(subkeys)}
    request = addressing.Request(query, values, lambda q, m: m @ q, params, {}, None)
    answer = jax.jit(lambda: rule.read(request))()
    np.testing.assert_allclose(answer.weights, expected, atol=1e-6)
    np.testing.assert_allclose(answer.block, expected @ values, atol=1e-5)


def test_mnads_losses_are_distances_to_the_two_nearest():
    queries, items = unit(QUERIES), unit(ITEMS)
    order = np.argsort(-queries @ items.T, axis=1)
    near, far = (np.linalg.norm(queries - items[order[:, i]], axis=1) for i in (0, 1))
    reads = BatchReads(jnp.asarray(QUERIES), jnp.asarray(items), jnp.zeros((30, 9)))
    np.testing.assert_allclose(jax.jit(mnad.compactness_loss)(reads), near.mean(), rtol=1e-5)
    separateness = jax.jit(lambda r: mnad.separateness_loss(r, margin=0.3))(reads)
    expected = np.maximum(near - far + 0.3, 0).mean()
    np.testing.assert_allclose(separateness, expected, rtol=1e-5)
    rule = addressing.get_rule("mnad", addressing.DEFAULTS._replace(margin=0.3))
    np.testing.assert_allclose(rule.losses(reads)["separateness_loss"], expected, rtol=1e-5)
    assert expected != pytest.approx(np.maximum(near - far + 1, 0).mean())


def test_mnads_update_is_the_papers():
    queries, items = unit(QUERIES[:6]), unit(ITEMS)
    products = queries @ items.T
    vertical = np.exp(products) / np.exp(products).sum(0)
    expected = items.copy()
    for item in range(9):
        chosen = np.flatnonzero(products.argmax(1) == item)
        if len(chosen):
            share = vertical[chosen, item] / vertical[chosen, item].max()
            expected[item] += share @ queries[chosen]
    # Compiled, a product with a one-hot becomes a choice, which would hide an infinity.
    for function in (jax.jit(mnad.updated_items), mnad.updated_items):
        got = function(jnp.asarray(ITEMS), jnp.asarray(QUERIES[:6]))
        np.testing.assert_allclose(got, unit(expected), atol=1e-6)
    assert len(set(products.argmax(1))) < 9


def test_bfloat16_keeps_a_uniform_row():
    # Neither 1/10 nor 1/499 is exact there.
    assert (dense.threshold(jnp.zeros(10, jnp.bfloat16)) > 0).all()
    assert (dense.threshold(jnp.zeros(499, jnp.bfloat16)) > 0).all()


@pytest.mark.parametrize("rule", [dense.threshold, dense.hard_shrinkage])
def test_double_precision_is_kept(rule):
    with jax.enable_x64(True):
        similarities = np.random.default_rng(0).normal(size=20)
        weights = rule(jnp.asarray(similarities))
        expected = np.exp(similarities) / np.exp(similarities).sum()
        kept = weights > 0
        assert weights.dtype == jnp.float64
        if rule is dense.threshold:
            np.testing.assert_allclose(weights[kept], expected[kept], rtol=1e-13)
        else:
            shrunk = np.where(expected > 1 / 20, expected, 0.0)
            np.testing.assert_allclose(weights, shrunk / shrunk.sum(), rtol=1e-9)
