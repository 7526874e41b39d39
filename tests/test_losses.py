import jax
import numpy as np
import pytest

from daad_jax import losses

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 3, 4)).astype(np.float32), RNG.normal(size=(2, 3, 4)).astype(np.float32)
REAL, FAKE = RNG.normal(size=7).astype(np.float32) * 5, RNG.normal(size=7).astype(np.float32) * 5


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("error", [losses.reconstruction_error, losses.alignment_error])
def test_squared_errors(error):
    np.testing.assert_allclose(jax.jit(error)(X, Y), (X - Y) ** 2, rtol=1e-6)


def test_mean_norm_and_its_gradient_at_zero():
    expected = np.sqrt(((X - Y) ** 2).reshape(2, -1).sum(1))
    np.testing.assert_allclose(jax.jit(losses.mean_norm)((X - Y) ** 2), expected, rtol=1e-6)
    grad = jax.grad(lambda x: losses.mean_norm(losses.reconstruction_error(x, X)).sum())(X)
    np.testing.assert_array_equal(grad, 0)


def test_discriminator_error():
    expected = -(np.log(sigmoid(REAL)) + np.log(1 - sigmoid(FAKE)))
    np.testing.assert_allclose(jax.jit(losses.discriminator_error)(REAL, FAKE), expected, rtol=1e-5)


@pytest.mark.parametrize("saturating", [True, False])
def test_generator_adversarial_error(saturating):
    expected = np.log(1 - sigmoid(FAKE)) if saturating else -np.log(sigmoid(FAKE))
    result = jax.jit(losses.generator_adversarial_error, static_argnames="saturating")(
        FAKE, saturating=saturating
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert (jax.vmap(jax.grad(losses.generator_adversarial_error))(FAKE) < 0).all()


def test_errors_stay_finite_where_the_discriminator_is_sure():
    far = np.array([-200.0, 200.0], np.float32)
    for saturating in (True, False):
        assert np.isfinite(losses.generator_adversarial_error(far, saturating=saturating)).all()
    assert np.isfinite(losses.discriminator_error(far, far)).all()


def test_total_loss_is_the_papers_weighted_sum():
    parts = np.float32(2), np.float32(3), np.float32(5)
    np.testing.assert_allclose(jax.jit(losses.total_loss)(*parts), 50 * 2 + 0.5 * 3 + 0.5 * 5)
    weights = losses.LossWeights(1.0, 10.0, 100.0)
    np.testing.assert_allclose(losses.total_loss(*parts, weights), 2 + 30 + 500)
