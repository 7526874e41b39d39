"""Rules that retrieve in several steps or through keys of their own: Hopfield, product keys."""

import math

import jax
import jax.numpy as jnp

from daad_jax.addressing.dense import softmax, top_k
from daad_jax.addressing.interface import (
    Answer,
    Compare,
    Hyperparameters,
    Properties,
    Request,
    Rule,
)


def hopfield(query: jax.Array, items: jax.Array, compare: Compare, *, steps: int) -> Answer:
    """Modern Hopfield retrieval (Ramsauer et al., ICLR 2021, Eq. 3), repeated.

    ``x <- M^T softmax(beta M x)`` from the query on; beta is one over the temperature. One step is
    the read of `softmax`.

    Args:
        query: ``(D,)``.
        items: ``(N, D)``.
        compare: the similarity over the temperature.
        steps: T, at least 1.

    Returns:
        The last state ``(D,)`` and its weights ``(N,)``, which sum to one.
    """
    block = query
    for _ in range(steps):
        weights = softmax(compare(block, items))
        block = weights @ items
    return Answer(block, weights)


def product_similarities(query: jax.Array, subkeys: jax.Array, compare: Compare) -> jax.Array:
    """Similarities of a query with n^2 product keys (Lample et al., NeurIPS 2019).

    A key is a pair of sub-keys, one for each half of the query; its similarity is the sum of both.

    Args:
        query: ``(D,)``, D even.
        subkeys: ``(2, n, D / 2)``.
        compare: the similarity over the temperature.

    Returns:
        ``(n * n,)``; key ``i n + j`` is the pair of sub-keys i and j.
    """
    first, second = jnp.split(query, 2)
    return (compare(first, subkeys[0])[:, None] + compare(second, subkeys[1])[None, :]).reshape(-1)


def hopfield_rule(hyper: Hyperparameters) -> Rule:
    """`hopfield` with `retrieval_steps`."""
    steps = hyper.retrieval_steps
    return Rule(
        lambda request: hopfield(request.query, request.items, request.compare, steps=steps),
        # A later step may leave the item that the first has found: one of larger dot product.
        Properties("one", equivariant=True, nearest_when_cold=steps == 1),
    )


def product_key_rule(hyper: Hyperparameters) -> Rule:
    """`product_similarities`, then `daad_jax.addressing.top_k` of them; the items are the values.

    The k best sums are the same whether they are looked for among all n^2, as here, or among the
    k best of either half; for the hundreds of items of a bank all of them are the cheaper.
    """

    def read(request: Request) -> Answer:
        similarities = product_similarities(
            request.query, request.params["subkeys"], request.compare
        )
        weights = top_k(similarities, k=hyper.top_k)
        return Answer(weights @ request.items, weights)

    def init_params(key: jax.Array, items: jax.Array) -> dict[str, jax.Array]:
        count, size = items.shape
        scale = jnp.sqrt(jnp.mean(jnp.square(items)))
        shape = (2, math.isqrt(count), size // 2)
        return {"subkeys": scale * jax.random.normal(key, shape, items.dtype)}

    return Rule(read, Properties("one", most_active=hyper.top_k), init_params=init_params)
