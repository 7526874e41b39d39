"""Projections onto the simplex: sparsemax and alpha-entmax, whose weights can be exactly zero."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from daad_jax.addressing.interface import Answer, Hyperparameters, Properties, Request, Rule

_BISECTIONS = 30
_LEAST_ALPHA = 1.01
_PROPERTIES = Properties("one", equivariant=True, nearest_when_cold=True)


def sparsemax(similarities: jax.Array) -> jax.Array:
    """The Euclidean projection onto the simplex (Martins and Astudillo, ICML 2016).

    ``w_i = max(s_i - tau, 0)`` with tau found by sorting, as there.

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
    # tau again, as a function of the kept values: the sum that was sorted has no gradient.
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

    ``w_i = max((alpha - 1) s_i - tau, 0) ** (1 / (alpha - 1))``; the gradient, also by alpha, is
    theirs.

    Args:
        similarities: ``(N,)``, finite.
        alpha: a scalar above 1 and at most 2; 2 is sparsemax, 1 would be softmax.

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
    """``s * t - s <s, t> / sum s``: the Jacobian of every entmax, s being w ** (2 - alpha)."""
    return slopes * (tangent - jnp.sum(slopes * tangent) / jnp.sum(slopes))


def sparsemax_rule(hyper: Hyperparameters) -> Rule:
    """`sparsemax`, without hyperparameters."""
    return _of(lambda similarities, params: sparsemax(similarities))


def entmax_rule(hyper: Hyperparameters) -> Rule:
    """`entmax` with `alpha`; with `learned_alpha` each bank learns its own, in (1.01, 2).

    The learned alpha is ``1.01 + 0.99 sigmoid(a)`` and begins at `alpha`. Correia et al. have ``1 +
    sigmoid(a)``, whose gradient is rounding alone near 1 in float32.
    """
    if not hyper.learned_alpha:
        if hyper.alpha == 1.5:
            return _of(lambda similarities, params: entmax15(similarities))
        fixed = functools.partial(entmax, alpha=hyper.alpha)
        return _of(lambda similarities, params: fixed(similarities))
    logit = jnp.log((hyper.alpha - _LEAST_ALPHA) / (2.0 - hyper.alpha))
    return _of(
        lambda similarities, params: entmax(
            similarities,
            _LEAST_ALPHA + (2.0 - _LEAST_ALPHA) * jax.nn.sigmoid(params["alpha_logit"]),
        ),
        init_params=lambda key, items: {"alpha_logit": jnp.asarray(logit, jnp.float32)},
    )


def _of(weigh: Any, **rest: Any) -> Rule:
    def read(request: Request) -> Answer:
        weights = weigh(request.compare(request.query, request.items), request.params)
        return Answer(weights @ request.items, weights)

    return Rule(read, _PROPERTIES, **rest)
