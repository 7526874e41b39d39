"""Sparsemax and entmax against NumPy, Optax, finite differences and the `entmax` package."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from daad_jax.addressing import Entmax, Sparsemax, contract
from daad_jax.addressing.rules import simplex
from daad_jax.addressing.similarity import cosine
from tests.addressing.oracles import ITEMS, QUERIES, SIMILARITIES, numpy_entmax, rows, weighed
from tests.fixtures import entmax_package

PACKAGE = dict(np.load(entmax_package.FILE))


def test_sparsemax_is_the_projection_of_optax_and_numpy():
    got = weighed(Sparsemax())
    projected = jax.vmap(optax.projections.projection_simplex)(jnp.asarray(SIMILARITIES))
    np.testing.assert_allclose(got, projected, atol=1e-6)
    np.testing.assert_allclose(got, [numpy_entmax(x, 2.0) for x in SIMILARITIES], atol=1e-6)
    assert (got == 0).any()


@pytest.mark.parametrize("alpha", [1.05, 1.2, 1.5, 1.8, 2.0])
def test_entmax_matches_numpy(alpha):
    expected = [numpy_entmax(x, alpha) for x in SIMILARITIES]
    np.testing.assert_allclose(rows(lambda s: simplex.entmax(s, alpha)), expected, atol=1e-6)
    np.testing.assert_allclose(weighed(Entmax(alpha)), expected, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in PACKAGE if f"{name}/by_similarities" in PACKAGE])
def test_weights_and_gradients_match_the_entmax_package(name):
    similarities, cotangent = (
        jnp.asarray(PACKAGE[key], jnp.float32) for key in ("similarities", "cotangent")
    )
    if name.startswith("entmax "):
        alphas = jnp.full(len(similarities), float(name.split()[1]))
        got, pull = jax.vjp(jax.vmap(simplex.entmax), similarities, alphas)
        # In float32, because differences are divided by (alpha - 1) ** 2.
        np.testing.assert_allclose(pull(cotangent)[1], PACKAGE[f"{name}/by_alpha"], atol=5e-5)
    else:
        alpha = {"sparsemax": 2.0, "entmax15": 1.5}[name]
        got, pull = jax.vjp(jax.vmap(lambda s: simplex.entmax(s, alpha)), similarities)
    np.testing.assert_allclose(got, PACKAGE[name], rtol=0, atol=1e-6)
    # At the edge of the support a slope is a small power of a small weight.
    by_similarities = PACKAGE[f"{name}/by_similarities"]
    np.testing.assert_allclose(pull(cotangent)[0], by_similarities, rtol=0, atol=1e-5)


def test_the_fixture_is_what_the_entmax_package_computes():
    pytest.importorskip("entmax")
    computed = entmax_package.compute()
    assert computed.keys() == PACKAGE.keys()
    for name, values in computed.items():
        np.testing.assert_allclose(PACKAGE[name], values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha", [2.0, 1.5, 1.3])
def test_gradients_of_projections_match_finite_differences(alpha):
    x, direction = SIMILARITIES[1].astype(np.float64), np.linspace(-1, 1, 40)
    call = lambda s: simplex.entmax(s, alpha)  # noqa: E731
    _, got = jax.jvp(call, (jnp.asarray(x, jnp.float32),), (jnp.asarray(direction, jnp.float32),))
    step = 1e-6
    high, low = (numpy_entmax(x + sign * step * direction, alpha) for sign in (1, -1))
    np.testing.assert_allclose(got, (high - low) / (2 * step), atol=2e-4)


def test_the_gradient_by_alpha_matches_finite_differences():
    x = SIMILARITIES[2]
    got = jax.jacobian(lambda alpha: simplex.entmax(jnp.asarray(x), alpha))(1.4)
    expected = (numpy_entmax(x, 1.4 + 1e-6) - numpy_entmax(x, 1.4 - 1e-6)) / 2e-6
    np.testing.assert_allclose(got, expected, atol=2e-4)


@pytest.mark.parametrize(("logit", "alpha"), [(None, 1.3), (-30.0, 1.01), (30.0, 2.0)])
def test_a_learned_alpha_starts_at_its_value_and_stays_in_its_range(logit, alpha):
    query, items = jnp.asarray(QUERIES[0]), jnp.asarray(ITEMS)
    rule = Entmax(1.3, learned=True)
    params = rule.init_params(jax.random.key(0), items)
    if logit is not None:
        params = {"alpha_logit": jnp.float32(logit)}
    reached = 1.01 + 0.99 * jax.nn.sigmoid(params["alpha_logit"])
    np.testing.assert_allclose(reached, alpha, atol=1e-6)
    got = contract.read(rule, query, items, params=params).weights
    np.testing.assert_allclose(got, numpy_entmax(cosine(query, items), alpha), atol=1e-5)
