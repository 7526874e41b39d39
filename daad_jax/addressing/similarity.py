"""Similarities of one query with N items, and the matrix product that all reads use.

Each similarity is one ``(D,) x (D, N)`` product, so `jax.vmap` over queries gives a single matrix
product. Products ask for `jax.lax.Precision.HIGHEST`: on accelerators the default rounds float32
inputs to bfloat16 or TF32, which changes which item is the most similar one.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from daad_jax.errors import ConfigError, shown, suggestion

Compare = Callable[[jax.Array, jax.Array], jax.Array]
"""Similarity function: a query ``(D,)`` and items ``(N, D)`` to similarities ``(N,)``."""

_EPSILON = 1e-8

matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""`jnp.matmul` with full float32 precision on every device, also in its gradient."""


def cosine(query: jax.Array, items: jax.Array) -> jax.Array:
    """Cosine similarity of a query ``(D,)`` and items ``(N, D)``: ``(N,)`` in [-1, 1].

    Where the query or the item is zero, it is 0 with a finite gradient.
    """
    # Scaling the products instead of the vectors avoids a scaled copy of all queries.
    return matmul(query, items.T) * _inverse_length(items) * _inverse_length(query)


def scaled_dot(query: jax.Array, items: jax.Array) -> jax.Array:
    """Dot product over the square root of D (Vaswani et al., NeurIPS 2017, Section 3.2.1).

    For a query ``(D,)`` and items ``(N, D)`` it returns ``(N,)``, of any range.
    """
    return matmul(query, items.T) / jnp.sqrt(jnp.asarray(query.shape[-1], query.dtype))


def distance(query: jax.Array, items: jax.Array) -> jax.Array:
    """Negative squared Euclidean distance of a query ``(D,)`` and items ``(N, D)``.

    Returns ``(N,)``, at most 0 up to rounding.
    """
    lengths = jnp.sum(jnp.square(items), axis=-1)
    return 2.0 * matmul(query, items.T) - lengths - jnp.sum(jnp.square(query))


SIMILARITIES: dict[str, Compare] = {"cosine": cosine, "dot": scaled_dot, "distance": distance}


def get_similarity(name: str) -> Compare:
    """Returns the similarity function of that name in `SIMILARITIES`.

    Raises ConfigError, which names ``memory.similarity``, if there is none.
    """
    if name not in SIMILARITIES:
        raise ConfigError(
            f"memory.similarity: no similarity {shown(name)}; {suggestion(name, SIMILARITIES)}"
        )
    return SIMILARITIES[name]


def normalized(vectors: jax.Array) -> jax.Array:
    """Scales vectors ``(..., D)`` to length 1; a zero vector stays zero, with a finite gradient."""
    return vectors * _inverse_length(vectors)[..., None]


def _inverse_length(vectors: jax.Array) -> jax.Array:
    squared = jnp.sum(jnp.square(vectors), axis=-1)
    return jax.lax.rsqrt(jnp.maximum(squared, _EPSILON**2))
