"""Loss functions against NumPy, the table of losses, and a user's own loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.errors import ConfigError
from daad_jax.train import losses
from daad_jax.train.losses import LOSSES, Loss, LossSpec, StepOutputs, Term, loss_spec
from tests.conftest import tiny_config, tiny_dataset
from tests.train.runs import fit, metrics_of

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 3, 4)).astype(np.float32), RNG.normal(size=(2, 3, 4)).astype(np.float32)
REAL, FAKE = RNG.normal(size=7).astype(np.float32) * 5, RNG.normal(size=7).astype(np.float32) * 5
OUTPUTS = StepOutputs(X, Y, X, Y, REAL, FAKE)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def spec_of(weights, **choices):
    return LossSpec(tuple(Term(name, w, LOSSES[name]) for name, w in weights.items()), **choices)


@pytest.mark.parametrize("loss", [losses.reconstruction_loss, losses.alignment_loss])
def test_squared_losses_are_means_of_squares_or_of_norms(loss):
    squares = (X.astype(np.float64) - Y) ** 2
    norms = np.sqrt(squares.reshape(2, -1).sum(1))
    roots = np.sqrt(squares.mean(axis=tuple(range(1, squares.ndim))))
    readings = {"mean_squared": squares.mean(), "norm": norms.mean()}
    for norm, expected in (readings | {"root_mean_squared": roots.mean()}).items():
        result = jax.jit(loss, static_argnums=1)(OUTPUTS, LossSpec((), norm, norm))
        np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_absolute_loss():
    result = jax.jit(losses.absolute_loss, static_argnums=1)(OUTPUTS, LossSpec(()))
    np.testing.assert_allclose(result, np.abs(X - Y).mean(), rtol=1e-6)


def test_example_norm_has_a_zero_gradient_at_zero():
    grad = jax.grad(lambda x: losses.example_norm(jnp.square(x - X)).sum())(X)
    np.testing.assert_array_equal(grad, 0)


def test_discriminator_error():
    expected = -(np.log(sigmoid(REAL)) + np.log(1 - sigmoid(FAKE)))
    np.testing.assert_allclose(jax.jit(losses.discriminator_error)(REAL, FAKE), expected, rtol=1e-5)


def adversarial_loss_of(logits, saturating):
    outputs = OUTPUTS._replace(logits_fake=logits)
    return losses.adversarial_loss(outputs, LossSpec((), saturating=saturating))


@pytest.mark.parametrize("saturating", [True, False])
def test_adversarial_loss(saturating):
    expected = np.log(1 - sigmoid(FAKE)) if saturating else -np.log(sigmoid(FAKE))
    loss, gradient = jax.value_and_grad(adversarial_loss_of)(FAKE, saturating)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    assert (gradient < 0).all()


def test_errors_are_finite_for_large_logits():
    far = np.array([-200.0, 200.0], np.float32)
    for saturating in (True, False):
        assert np.isfinite(adversarial_loss_of(far, saturating))
    assert np.isfinite(losses.discriminator_error(far, far)).all()


def test_the_generators_loss_is_the_weighted_sum_of_all_terms():
    spec = spec_of({"rec": 50.0, "adv": 0.5, "ali": 0.25, "l1": 3.0})
    outputs = OUTPUTS._replace(addressing=jnp.float32(7))
    total, metrics = jax.jit(losses.generator_loss, static_argnums=1)(outputs, spec)
    parts = {name: LOSSES[name].function(outputs, spec) for name in ("rec", "adv", "ali", "l1")}
    expected = 50 * parts["rec"] + 0.5 * parts["adv"] + 0.25 * parts["ali"] + 3 * parts["l1"] + 7
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert metrics["loss/generator"] == total
    for name, value in {**parts, "addressing": 7.0}.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], value, rtol=1e-6)


@pytest.mark.parametrize("alignment", [True, False])
def test_the_discriminators_loss(alignment):
    spec = spec_of({"adv": 0.5, "ali": 3.0}, alignment_updates_discriminator=alignment)
    total, metrics = losses.discriminator_loss(OUTPUTS, spec)
    error = losses.discriminator_error(REAL, FAKE).mean()
    added = 3.0 * losses.alignment_loss(OUTPUTS, spec) if alignment else 0.0
    np.testing.assert_allclose(total, 0.5 * error + added, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/discriminator"], error, rtol=1e-6)
    np.testing.assert_allclose(metrics["discriminator/real"], sigmoid(REAL).mean(), rtol=1e-5)


def test_the_config_decides_terms_and_weights():
    spec = loss_spec(tiny_config(loss__extra="l1=0.25"))
    weights = {term.name: term.weight for term in spec.terms}
    assert weights == {"rec": 50.0, "adv": 0.5, "ali": 0.5, "l1": 0.25}
    assert [term.name for term in loss_spec(tiny_config("daad")).terms] == ["rec"]


def test_unknown_losses_and_missing_discriminators_are_config_errors(monkeypatch):
    with pytest.raises(ConfigError, match=r"loss.extra: no loss 'l2'.*l1"):
        losses.loss_spec(tiny_config(loss__extra="l2=0.5"))
    monkeypatch.setitem(LOSSES, "mine", LOSSES["adv"])
    losses.loss_spec(tiny_config(loss__extra="mine=1"))
    with pytest.raises(ConfigError, match="loss.extra: mine needs a discriminator; set loss.adv"):
        losses.loss_spec(tiny_config("daad", loss__extra="mine=1"))


def test_a_new_entry_of_the_table_is_trained_and_logged(tmp_path, one_device, monkeypatch):
    """Also when another loss of the same name was compiled before."""
    config = tiny_config(train__steps=2, loss__extra="mine=0.5")
    dataset = tiny_dataset(config)
    totals = []
    for folder, power in (("a", 1), ("b", 2)):

        def mine(outputs, spec, power=power):
            return jnp.mean(jnp.abs(outputs.reconstruction)) ** power

        monkeypatch.setitem(LOSSES, "mine", Loss(mine, False, "size of the reconstruction"))
        fit(config, dataset, tmp_path / folder, mesh=one_device)
        lines = metrics_of(tmp_path / folder)
        assert len(lines) == 2
        for line in lines:
            weights = {"rec": 50.0, "adv": 0.5, "ali": 0.5, "mine": 0.5}
            expected = sum(weight * line[f"loss/{name}"] for name, weight in weights.items())
            assert line["loss/generator"] == pytest.approx(expected, rel=1e-5)
        totals.append(lines[0]["loss/mine"])
    assert totals[1] == pytest.approx(totals[0] ** 2, rel=1e-4)
