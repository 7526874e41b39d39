"""The losses of Section 3.2 as elementwise functions; the caller reduces.

They know nothing of networks: each maps arrays to an array of the same shape, so they can be
vmapped, masked and weighted at will.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class LossWeights(NamedTuple):
    """lambda_rec, lambda_adv and lambda_ali, with the paper's values as defaults."""

    rec: float = 50.0
    adv: float = 0.5
    ali: float = 0.5


PAPER_WEIGHTS = LossWeights()


def reconstruction_error(images: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """Squared error of each element, whose mean over x is L_rec, Eq. (4).

    The paper writes the L2 norm of ``x - x_hat``; its weight of 50 presumes a mean over elements,
    so the loss is the mean of this array. There is no factor of 0.5.

    Args:
        images: any shape, in [-1, 1].
        reconstruction: the same shape.

    Returns:
        The same shape, in [0, 4].
    """
    return jnp.square(images - reconstruction)


def alignment_error(features: jax.Array, reconstruction_features: jax.Array) -> jax.Array:
    """Squared difference of f_D(x) and f_D(x_hat), whose mean is L_ali, Eq. (6).

    Args:
        features: the discriminator's features of the images, any shape.
        reconstruction_features: those of the reconstructions, the same shape.

    Returns:
        The same shape, not negative.
    """
    return jnp.square(features - reconstruction_features)


def mean_norm(squared_error: jax.Array) -> jax.Array:
    """The unsquared L2 norm of each example over all but the first axis: ``(B, ...) -> (B,)``.

    The other reading of the norms in the reconstruction and alignment losses. The gradient at an
    error of exactly zero is zero.
    """
    total = jnp.sum(squared_error.reshape(squared_error.shape[0], -1), axis=-1)
    positive = total > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1.0)), 0.0)


def discriminator_error(logits_real: jax.Array, logits_fake: jax.Array) -> jax.Array:
    """What the discriminator minimises: minus the value of the adversarial game, Eq. (5).

    ``-(log D(x) + log(1 - D(x_hat)))`` from logits.

    Args:
        logits_real: D's logits of images, any shape.
        logits_fake: D's logits of reconstructions, the same shape.

    Returns:
        The same shape, not negative; 2 log 2 where D is undecided.
    """
    return jax.nn.softplus(-logits_real) + jax.nn.softplus(logits_fake)


def generator_adversarial_error(logits_fake: jax.Array, *, saturating: bool = False) -> jax.Array:
    """The generator's part of the adversarial game, from logits.

    Args:
        logits_fake: D's logits of reconstructions, any shape.
        saturating: ``log(1 - D(x_hat))`` as the paper writes it when true; ``-log D(x_hat)``,
            which has a gradient where D is sure, when false.

    Returns:
        The same shape.
    """
    if saturating:
        return -jax.nn.softplus(logits_fake)
    return jax.nn.softplus(-logits_fake)


def total_loss(
    rec: jax.Array, adv: jax.Array, ali: jax.Array, weights: LossWeights = PAPER_WEIGHTS
) -> jax.Array:
    """The weighted sum that the generator minimises, Eq. (3).

    ``lambda_rec L_rec + lambda_adv L_adv + lambda_ali L_ali``, elementwise over equal shapes.
    """
    return weights.rec * rec + weights.adv * adv + weights.ali * ali
