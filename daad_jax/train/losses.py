"""The losses: pure functions, and the table `LOSSES` of the terms of the generator's loss.

A new loss is one entry of the table. It gets its weight from ``loss.NAME`` or ``loss.extra`` of
the config and is logged as ``loss/NAME``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from daad_jax.config import Config
from daad_jax.errors import ConfigError, suggestion
from daad_jax.models.validity import count_only


class StepOutputs(NamedTuple):
    """The arrays that losses are computed from.

    Attributes:
        images: the batch x, ``(B, H, W, C)`` in [-1, 1].
        reconstruction: x_hat, ``(B, H, W, C)`` in [-1, 1].
        features_real: f_D(x), ``(B, h, w, c)``; None without a discriminator.
        features_fake: f_D(x_hat), ``(B, h, w, c)``; None without a discriminator.
        logits_real: the discriminator's logits of the images, ``(B,)``; None without one.
        logits_fake: the discriminator's logits of the reconstructions, ``(B,)``; None without one.
        valid: ``(B, H, W, 1)``, 1.0 where a pixel counts and 0.0 elsewhere; there the
            reconstruction is the image. None if all pixels count.
        addressing: weighted sum of the losses of the addressing rules, a scalar; None if no rule
            has a loss.
    """

    images: jax.Array
    reconstruction: jax.Array
    features_real: jax.Array | None = None
    features_fake: jax.Array | None = None
    logits_real: jax.Array | None = None
    logits_fake: jax.Array | None = None
    addressing: jax.Array | None = None
    valid: jax.Array | None = None


class Loss(NamedTuple):
    """One entry of `LOSSES`; `sentence` describes it in reports.

    The function maps `StepOutputs` and a `LossSpec` to a scalar. `needs_discriminator` is true if
    it uses the discriminator's logits or features.
    """

    function: "Callable[[StepOutputs, LossSpec], jax.Array]"
    needs_discriminator: bool
    sentence: str


class Term(NamedTuple):
    """A loss and its weight in the generator's total loss."""

    name: str
    weight: float
    loss: Loss


class LossSpec(NamedTuple):
    """The losses of a run; hashable.

    The terms are added in their order. `rec_norm` and `ali_norm` are the config's. With
    `saturating`, the generator's adversarial loss is the saturating one.
    """

    terms: tuple[Term, ...]
    rec_norm: str = "norm"
    ali_norm: str = "norm"
    saturating: bool = False
    alignment_updates_discriminator: bool = False

    def weight(self, name: str) -> float:
        """The weight of a term; 0 if there is no such term."""
        return next((term.weight for term in self.terms if term.name == name), 0.0)

    @property
    def trains_discriminator(self) -> bool:
        """Whether the discriminator has a loss, so that its parameters are updated."""
        return self.weight("adv") > 0 or self.alignment_updates_discriminator


def loss_spec(config: Config) -> LossSpec:
    """Reads the losses from a config. Those without a weight, but L_rec, are left out.

    Raises ConfigError if `loss.extra` names an unknown loss, a loss with a field of its own, or a
    loss that needs a discriminator where there is none.
    """
    settings = config.loss
    terms = []
    for name, weight in settings.weights().items():
        if name not in LOSSES:
            raise ConfigError(f"loss.extra: no loss {name!r}; {suggestion(name, LOSSES)}")
        loss = LOSSES[name]
        if loss.needs_discriminator and not config.has_discriminator and weight > 0:
            raise ConfigError(
                f"loss.extra: {name} needs a discriminator; set loss.adv or loss.ali above 0"
            )
        if weight > 0 or name == "rec":  # L_rec is always logged
            terms.append(Term(name, weight, loss))
    return LossSpec(
        tuple(terms),
        rec_norm=settings.rec_norm,
        ali_norm=settings.ali_norm,
        saturating=settings.adversarial == "saturating",
        alignment_updates_discriminator=settings.alignment_updates_discriminator,
    )


def generator_loss(outputs: StepOutputs, spec: LossSpec) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The total loss that the generator minimises, Eq. (3): the weighted sum of its terms.

    ``lambda_rec L_rec + lambda_adv L_adv + lambda_ali L_ali``, plus the weighted losses of
    `loss.extra` and of the addressing rules, which the paper does not have.

    Returns the loss, a scalar, and the metrics: ``loss/NAME`` of each term without its weight,
    ``loss/addressing`` if a rule has a loss, and ``loss/generator``, the total.
    """
    values = {term.name: term.loss.function(outputs, spec) for term in spec.terms}
    total = sum((term.weight * values[term.name] for term in spec.terms), jnp.zeros(()))
    if outputs.addressing is not None:
        values["addressing"] = outputs.addressing
        total = total + outputs.addressing
    metrics = {f"loss/{name}": value for name, value in values.items()}
    return total, metrics | {"loss/generator": total}


def discriminator_loss(
    outputs: StepOutputs, spec: LossSpec
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss that the discriminator minimises: lambda_adv times the adversarial error.

    With `alignment_updates_discriminator`, ``lambda_ali L_ali`` is added.

    Returns the loss, a scalar, and the metrics: ``loss/discriminator``, the adversarial error
    without its weight; ``discriminator/real`` and ``discriminator/fake``, the means of the
    probabilities D(x) and D(x_hat).
    """
    real, fake = outputs.logits_real, outputs.logits_fake
    assert real is not None
    assert fake is not None
    error = jnp.mean(discriminator_error(real, fake))
    loss = spec.weight("adv") * error
    if spec.alignment_updates_discriminator:
        loss = loss + spec.weight("ali") * alignment_loss(outputs, spec)
    metrics = {
        "loss/discriminator": error,
        "discriminator/real": jnp.mean(jax.nn.sigmoid(real)),
        "discriminator/fake": jnp.mean(jax.nn.sigmoid(fake)),
    }
    return loss, metrics


def reconstruction_loss(outputs: StepOutputs, spec: LossSpec) -> jax.Array:
    """L_rec, Eq. (4): the mean over images of the L2 norm of ``x - x_hat``, a scalar, at least 0.

    The norm is not squared, as the paper writes it. `rec_norm` offers other readings. Where not all
    pixels count, those that do are weighted up by `daad_jax.models.validity.count_only`.
    """
    error = jnp.square(outputs.images - outputs.reconstruction)
    return _reduce(count_only(error, outputs.valid), spec.rec_norm)


def adversarial_loss(outputs: StepOutputs, spec: LossSpec) -> jax.Array:
    """L_adv of the generator, a scalar: the mean of ``-log D(x_hat)``, at least 0.

    With `saturating` it is the mean of ``log(1 - D(x_hat))``, at most 0, as in the paper. The
    gradient of that form vanishes for a confident discriminator.
    """
    fake = outputs.logits_fake
    assert fake is not None
    return jnp.mean(-jax.nn.softplus(fake) if spec.saturating else jax.nn.softplus(-fake))


def alignment_loss(outputs: StepOutputs, spec: LossSpec) -> jax.Array:
    """L_ali, Eq. (6): the mean over images of the L2 norm of ``f_D(x) - f_D(x_hat)``, a scalar.

    `ali_norm` offers other readings. The generator's gradient reaches it through f_D(x_hat) only.
    """
    assert outputs.features_real is not None
    assert outputs.features_fake is not None
    error = jnp.square(outputs.features_real - outputs.features_fake)
    return _reduce(count_only(error, outputs.valid), spec.ali_norm)


def absolute_loss(outputs: StepOutputs, spec: LossSpec) -> jax.Array:
    """Mean absolute error of the reconstruction, a scalar in [0, 2]. Not in the paper."""
    del spec
    return jnp.mean(count_only(jnp.abs(outputs.images - outputs.reconstruction), outputs.valid))


def discriminator_error(logits_real: jax.Array, logits_fake: jax.Array) -> jax.Array:
    """Minus the value of the adversarial game, Eq. (5): ``-(log D(x) + log(1 - D(x_hat)))``.

    Both arrays of logits have the same shape, and so has the result. It is at least 0, and 2 log 2
    where both probabilities are 0.5.
    """
    return jax.nn.softplus(-logits_real) + jax.nn.softplus(logits_fake)


def example_norm(squared_error: jax.Array) -> jax.Array:
    """The L2 norm ``(B,)`` of each example from squared errors ``(B, ...)``.

    The gradient at an error of exactly zero is zero.
    """
    total = jnp.sum(squared_error.reshape(squared_error.shape[0], -1), axis=-1)
    positive = total > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1.0)), 0.0)


def _reduce(squared_error: jax.Array, norm: str) -> jax.Array:
    if norm == "mean_squared":
        return jnp.mean(squared_error)
    size = squared_error[0].size if norm == "root_mean_squared" else 1
    return jnp.mean(example_norm(squared_error)) / size**0.5


LOSSES: dict[str, Loss] = {
    "rec": Loss(reconstruction_loss, False, "reconstruction error"),
    "adv": Loss(adversarial_loss, True, "adversarial loss of the generator"),
    "ali": Loss(alignment_loss, True, "alignment of the discriminator's features"),
    "l1": Loss(absolute_loss, False, "mean absolute error of the reconstruction"),
}
"""The losses by name; `loss.rec`, `loss.adv`, `loss.ali` and `loss.extra` give their weights."""
