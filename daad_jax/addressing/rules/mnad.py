"""MNAD's memory (Park, Noh and Ham, CVPR 2020): its read, its update and its two losses."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from daad_jax.addressing.rule import Arrays, BatchReads, hyperparameter
from daad_jax.addressing.rules.dense import Softmax
from daad_jax.addressing.selection import are_largest
from daad_jax.addressing.similarity import matmul, normalized


@dataclass(frozen=True)
class MNAD(Softmax):
    """MNAD: softmax reads of items of length 1. Queries move the items; gradients do not.

    There are two deviations. The decoder gets the read alone; the paper's decoder also gets the
    query, which would bypass the memory. Gradients pass through the weights; the authors' code
    stops them.

    The margin of the separateness loss and the weights of both losses are at least 0.
    """

    margin: float = hyperparameter(1.0, at_least=0)
    compactness_weight: float = hyperparameter(0.1, at_least=0)
    separateness_weight: float = hyperparameter(0.1, at_least=0)

    def init_state(self, items: jax.Array) -> dict[str, jax.Array]:
        """The items ``(N, D)`` scaled to length 1."""
        return {"memory_items": normalized(items)}

    def update(self, state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        """Moves the items towards the queries of the batch, as in the paper.

        ``p_m <- f(p_m + sum_k v'_km q_k)``. The sum is over the queries k whose nearest item is m,
        and f scales to length 1. ``v_km`` is a softmax over all queries; v' is v divided by its
        largest value among the queries of m (in the authors' code, among all queries). An item that
        is not the nearest of any query keeps its direction.
        """
        queries, items = normalized(reads.queries), normalized(state["memory_items"])
        products = matmul(queries, items.T)
        assigned = jax.vmap(are_largest, (0, None))(products, 1).astype(items.dtype)
        # v' is exp of the difference from the largest product: the sum of the softmax cancels.
        largest = jnp.max(jnp.where(assigned > 0.0, products, -jnp.inf), axis=0)
        shares = assigned * jnp.exp(jnp.minimum(products - largest[None, :], 0.0))
        return {"memory_items": normalized(items + matmul(shares.T, queries))}

    def losses(self, reads: BatchReads) -> dict[str, jax.Array]:
        """The feature compactness and separateness losses.

        ``d_1`` and ``d_2`` are the distances of a query, scaled to length 1, from its two nearest
        items. Compactness is the mean of ``d_1`` (in the authors' code the mean squared
        difference). Separateness is the mean of ``max(d_1 - d_2 + margin, 0)``; it is 0 for a bank
        of one item.
        """
        first, second = _nearest_distances(reads)
        apart = jnp.zeros(())
        if second is not None:
            apart = jnp.mean(jax.nn.relu(first - second + self.margin))
        return {"compactness_loss": jnp.mean(first), "separateness_loss": apart}


def _nearest_distances(reads: BatchReads) -> tuple[jax.Array, jax.Array | None]:
    """Distances ``(M,)`` of the queries, scaled to length 1, to their two nearest items."""
    queries = normalized(reads.queries)
    products = matmul(queries, normalized(reads.items).T)
    nearest = jax.vmap(are_largest, (0, None))(products, 1)
    first = _distance(queries, matmul(nearest.astype(queries.dtype), reads.items))
    if reads.items.shape[0] == 1:
        return first, None
    second = jax.vmap(are_largest, (0, None))(products, 2) & ~nearest
    return first, _distance(queries, matmul(second.astype(queries.dtype), reads.items))


def _distance(first: jax.Array, second: jax.Array) -> jax.Array:
    squared = jnp.sum(jnp.square(first - second), axis=-1)
    positive = squared > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
