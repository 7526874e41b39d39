"""Addressing rules: from the similarities of one query with N items to N weights.

A rule is a pure function ``(N,) -> (N,)``; `daad_jax.memory.read` calls it and `jax.vmap` spreads
it over blocks and images. ``memory.addressing`` names one of `RULES`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from daad_jax.errors import ConfigError, suggestion

Rule = Callable[[jax.Array], jax.Array]

# exp(-log N) falls below 1/N in float32 for hundreds of N; a uniform row must keep every item.
_TIE_TOLERANCE = 1e-5


def softmax(similarities: jax.Array) -> jax.Array:
    """Addressing weights by a softmax over the items, Eq. (1).

    ``w_i = exp(s_i) / sum_j exp(s_j)`` with ``s_i`` the cosine similarity of the query and item i
    (divided by a temperature, 1 in the paper).

    Args:
        similarities: ``(N,)``, finite.

    Returns:
        ``(N,)`` weights in [0, 1] that sum to one.
    """
    return jax.nn.softmax(similarities)


def threshold(similarities: jax.Array, *, renormalize: bool = False) -> jax.Array:
    """Softmax weights without those below 1/N (Section 3.1.2): DAAD's own rule.

    A weight that equals 1/N is kept, compared with a relative tolerance of 1e-5.

    Args:
        similarities: ``(N,)``, finite.
        renormalize: whether the kept weights are scaled to sum to one. The paper only drops.

    Returns:
        ``(N,)`` weights in [0, 1]; their sum is at most one, or one when renormalised.
    """
    weights = softmax(similarities)
    floor = (1.0 - _TIE_TOLERANCE) / similarities.shape[0]
    kept = jnp.where(weights >= floor, weights, 0.0)
    return kept / jnp.sum(kept) if renormalize else kept


def threshold_renormalized(similarities: jax.Array) -> jax.Array:
    """`threshold` with the kept weights scaled to sum to one; shapes as there."""
    return threshold(similarities, renormalize=True)


RULES: dict[str, Rule] = {
    "softmax": softmax,
    "threshold": threshold,
    "threshold_renormalized": threshold_renormalized,
}


def get_rule(name: str) -> Rule:
    """Returns the rule that ``memory.addressing`` names.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in RULES:
        raise ConfigError(f"memory.addressing: no rule {name!r}; {suggestion(name, RULES)}")
    return RULES[name]
