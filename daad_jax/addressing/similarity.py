"""Similarities of one query with items: ``(D,), (N, D) -> (N,)``; `memory.similarity` names one.

Written as one 1 x D product each, so that vmap over queries makes a matrix product of it, and what
depends on the items alone is computed once for all queries.
"""

import jax
import jax.numpy as jnp

from daad_jax.addressing.interface import Compare

_EPSILON = 1e-8


def cosine(query: jax.Array, items: jax.Array) -> jax.Array:
    """Cosine similarity, in [-1, 1]; 0 with a finite gradient for a zero query or item."""
    # Dividing by the lengths last spares a scaled copy of all queries, which vmap makes of one.
    return (query @ items.T) * _over_length(items) * _over_length(query)


def scaled_dot(query: jax.Array, items: jax.Array) -> jax.Array:
    """Dot product over the square root of D (Vaswani et al., NeurIPS 2017, Section 3.2.1)."""
    return query @ items.T / jnp.sqrt(jnp.asarray(query.shape[-1], query.dtype))


def distance(query: jax.Array, items: jax.Array) -> jax.Array:
    """Negative squared Euclidean distance, at most 0 up to rounding."""
    lengths = jnp.sum(jnp.square(items), axis=-1)
    return 2.0 * (query @ items.T) - lengths - jnp.sum(jnp.square(query))


SIMILARITIES: dict[str, Compare] = {"cosine": cosine, "dot": scaled_dot, "distance": distance}


def normalized(vectors: jax.Array) -> jax.Array:
    """Vectors ``(..., D)`` scaled to length 1; a zero vector stays, with a finite gradient."""
    return vectors * _over_length(vectors)[..., None]


def _over_length(vectors: jax.Array) -> jax.Array:
    squared = jnp.sum(jnp.square(vectors), axis=-1)
    return jax.lax.rsqrt(jnp.maximum(squared, _EPSILON**2))
