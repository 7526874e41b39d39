"""Projections onto the simplex: sparsemax and alpha-entmax, whose weights can be exactly zero."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from daad_jax.addressing.rule import Arrays, Properties, Rule, hyperparameter
from daad_jax.errors import ConfigError

_BISECTIONS = 30
_LEAST_ALPHA = 1.01


class Sparsemax(Rule):
    """Projection of the similarities onto the simplex (Martins and Astudillo, ICML 2016)."""

    properties = Properties("one", equivariant=True, nearest_when_cold=True)

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Projects finite similarities ``(N,)``: weights ``(N,)`` that sum to one."""
        return entmax(similarities, 2.0)


@dataclass(frozen=True)
class Entmax(Rule):
    """alpha-entmax, between softmax (alpha 1) and sparsemax (alpha 2).

    A learned alpha is ``1.01 + 0.99 sigmoid(a)`` with one parameter a per bank. Correia et al. use
    ``1 + sigmoid(a)``, but near 1 the float32 gradient is dominated by rounding.

    `alpha` is from 1.01 to 2. With `learned` each bank learns its own, starting from `alpha`, which
    must then lie strictly between 1.01 and 2.
    """

    alpha: float = hyperparameter(1.5, at_least=_LEAST_ALPHA, at_most=2)
    learned: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError for a wrong value, or a learned alpha at an end of its range."""
        super().__post_init__()
        if self.learned and not _LEAST_ALPHA < self.alpha < 2:
            raise ConfigError(
                f"memory.addressing: entmax: alpha={self.alpha} must be above {_LEAST_ALPHA} and "
                "below 2 with learned=True"
            )

    properties = Properties("one", equivariant=True, nearest_when_cold=True)

    def init_params(self, key: jax.Array, items: jax.Array) -> dict[str, jax.Array]:
        """The parameter a of a learned alpha, a scalar."""
        if not self.learned:
            return {}
        logit = math.log((self.alpha - _LEAST_ALPHA) / (2.0 - self.alpha))
        return {"alpha_logit": jnp.asarray(logit, jnp.float32)}

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """alpha-entmax of finite similarities ``(N,)``: weights ``(N,)`` that sum to one."""
        if self.learned:
            share = jax.nn.sigmoid(params["alpha_logit"])
            return entmax(similarities, _LEAST_ALPHA + (2.0 - _LEAST_ALPHA) * share)
        return entmax(similarities, self.alpha)


def entmax(similarities: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """alpha-entmax of similarities ``(N,)`` by bisection (Correia et al., EMNLP 2019).

    ``w_i = max((alpha - 1) s_i - tau, 0) ** (1 / (alpha - 1))``, with tau such that the weights
    ``(N,)`` sum to one. The gradients with respect to the similarities and alpha are the paper's.

    The similarities are finite. The scalar alpha is above 1 and at most 2. Sparsemax is alpha 2;
    softmax is the limit as alpha approaches 1.
    """
    values = similarities.astype(jnp.float32)
    values = values - jax.lax.stop_gradient(jnp.max(values))
    return _entmax(values, jnp.asarray(alpha, jnp.float32)).astype(similarities.dtype)


@jax.custom_jvp
def _entmax(values: jax.Array, alpha: jax.Array) -> jax.Array:
    scaled = (alpha - 1.0) * values
    power = 1.0 / (alpha - 1.0)
    high = jnp.max(scaled) - values.shape[0] ** (1.0 - alpha)
    low = jnp.max(scaled) - 1.0

    def weights(tau: jax.Array) -> jax.Array:
        return jnp.maximum(scaled - tau, 0.0) ** power

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2.0
        above = jnp.sum(weights(middle)) >= 1.0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    found = weights(low)
    return found / jnp.sum(found)


@_entmax.defjvp
def _entmax_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    values, alpha = primals
    weights = _entmax(values, alpha)
    positive = weights > 0.0
    safe = jnp.where(positive, weights, 1.0)
    slopes = jnp.where(positive, safe ** (2.0 - alpha), 0.0)
    share = slopes / jnp.sum(slopes)
    entropies = -weights * jnp.log(safe)
    by_alpha = (weights - share) / jnp.square(alpha - 1.0)
    by_alpha = by_alpha + (entropies - share * jnp.sum(entropies)) / (alpha - 1.0)
    by_values = slopes * tangents[0]
    return weights, by_values - share * jnp.sum(by_values) + by_alpha * tangents[1]
