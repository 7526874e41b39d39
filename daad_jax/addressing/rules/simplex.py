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
        """`sparsemax` of finite similarities ``(N,)``: weights ``(N,)`` that sum to one."""
        return sparsemax(similarities)


@dataclass(frozen=True)
class Entmax(Rule):
    """alpha-entmax, between softmax (alpha 1) and sparsemax (alpha 2).

    A learned alpha is ``1.01 + 0.99 sigmoid(a)`` with one parameter a per bank. Correia et al. use
    ``1 + sigmoid(a)``, but near 1 the float32 gradient is dominated by rounding.

    Attributes:
        alpha: from 1.01 to 2; the initial value where it is learned, then below 2 and above 1.01.
        learned: whether each bank learns its own alpha.
    """

    alpha: float = hyperparameter(1.5, at_least=_LEAST_ALPHA, at_most=2)
    learned: bool = False

    def __post_init__(self) -> None:
        """Checks the hyperparameters.

        Raises:
            ConfigError: if a learned alpha starts at an end of its range.
        """
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
        return entmax15(similarities) if self.alpha == 1.5 else entmax(similarities, self.alpha)


def sparsemax(similarities: jax.Array) -> jax.Array:
    """Euclidean projection onto the simplex (Martins and Astudillo, ICML 2016).

    ``w_i = max(s_i - tau, 0)`` with tau found by sorting (Algorithm 1).

    Args:
        similarities: ``(N,)``, finite.

    Returns:
        ``(N,)`` weights that sum to one.
    """
    values = _shifted(similarities)
    ordered = jax.lax.stop_gradient(-jnp.sort(-values))
    sums = jnp.cumsum(ordered)
    counts = jnp.arange(1, values.shape[0] + 1, dtype=values.dtype)
    size = jnp.sum(1.0 + counts * ordered > sums)
    kept = values >= ordered[size - 1]
    # Recomputed from the kept values: the sorted values carry no gradient.
    tau = (jnp.sum(jnp.where(kept, values, 0.0)) - 1.0) / jnp.sum(kept)
    return jnp.maximum(values - tau, 0.0).astype(similarities.dtype)


def entmax15(similarities: jax.Array) -> jax.Array:
    """1.5-entmax by sorting (Peters, Niculae and Martins, ACL 2019).

    Args:
        similarities: ``(N,)``, finite.

    Returns:
        ``(N,)`` weights that sum to one.
    """
    return _entmax15(_shifted(similarities)).astype(similarities.dtype)


def entmax(similarities: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """alpha-entmax by bisection (Correia, Niculae and Martins, EMNLP 2019).

    ``w_i = max((alpha - 1) s_i - tau, 0) ** (1 / (alpha - 1))``; the gradients by
    the similarities and by alpha are those of the paper.

    Args:
        similarities: ``(N,)``, finite.
        alpha: a scalar above 1 and at most 2; 2 is sparsemax, the limit 1 is softmax.

    Returns:
        ``(N,)`` weights that sum to one.
    """
    values = _shifted(similarities)
    return _entmax(values, jnp.asarray(alpha, jnp.float32)).astype(similarities.dtype)


def _shifted(similarities: jax.Array) -> jax.Array:
    values = similarities.astype(jnp.float32)
    return values - jax.lax.stop_gradient(jnp.max(values))


@jax.custom_jvp
def _entmax15(values: jax.Array) -> jax.Array:
    halves = values / 2.0
    ordered = -jnp.sort(-halves)
    counts = jnp.arange(1, values.shape[0] + 1, dtype=values.dtype)
    means = jnp.cumsum(ordered) / counts
    squares = jnp.cumsum(jnp.square(ordered)) / counts
    spread = counts * (squares - jnp.square(means))
    tau = means - jnp.sqrt(jnp.maximum((1.0 - spread) / counts, 0.0))
    size = jnp.sum(tau <= ordered)
    weights = jnp.square(jnp.maximum(halves - tau[size - 1], 0.0))
    return weights / jnp.sum(weights)


@_entmax15.defjvp
def _entmax15_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    weights = _entmax15(*primals)
    return weights, _tangent(jnp.sqrt(weights), tangents[0])


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
    return weights, _tangent(slopes, tangents[0]) + by_alpha * tangents[1]


def _tangent(slopes: jax.Array, tangent: jax.Array) -> jax.Array:
    """``s * t - s <s, t> / sum s``: the Jacobian of every entmax, with s = w ** (2 - alpha)."""
    return slopes * (tangent - jnp.sum(slopes * tangent) / jnp.sum(slopes))
