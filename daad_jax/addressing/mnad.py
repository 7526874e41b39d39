"""MNAD's memory (Park, Noh and Ham, CVPR 2020): its read, two losses and its update.

Items, losses and the update go by directions, as there, and with `cosine` so does the read. The
decoder gets the read alone: the paper's also gets the query, which would go around the memory. The
authors' code reads with weights that pass on no gradient; here they do.
"""

import jax
import jax.numpy as jnp

from daad_jax.addressing.dense import softmax
from daad_jax.addressing.interface import (
    Answer,
    Arrays,
    BatchReads,
    Hyperparameters,
    Properties,
    Request,
    Rule,
)
from daad_jax.addressing.similarity import normalized


def compactness_loss(reads: BatchReads) -> jax.Array:
    """The feature compactness loss: the mean distance of a query from the item nearest to it.

    The authors' code takes the mean of the squared differences instead.
    """
    return jnp.mean(_nearest_distances(reads)[0])


def separateness_loss(reads: BatchReads, *, margin: float) -> jax.Array:
    """The feature separateness loss: the mean of ``max(d_1 - d_2 + margin, 0)``.

    d_1 and d_2 are a query's distances from its two nearest items. 0 for a bank of one item.
    """
    first, second = _nearest_distances(reads)
    if second is None:
        return jnp.zeros(())
    return jnp.mean(jax.nn.relu(first - second + margin))


def updated_items(items: jax.Array, queries: jax.Array) -> jax.Array:
    """The items after a batch of queries, the paper's update.

    ``p_m <- f(p_m + sum_k v'_km q_k)`` over the queries k whose nearest item is m, f to length 1;
    ``v_km`` is a softmax over all queries, and v' is v over its largest value among those (in the
    authors' code, among all queries).

    Args:
        items: ``(N, D)``.
        queries: ``(M, D)``.

    Returns:
        ``(N, D)`` of length 1; an item that is no query's nearest keeps its direction.
    """
    queries, items = normalized(queries), normalized(items)
    products = queries @ items.T
    assigned = jax.nn.one_hot(jnp.argmax(products, axis=1), items.shape[0], dtype=items.dtype)
    # v' is exp of the difference to the largest product: the softmax's own sum cancels.
    largest = jnp.max(jnp.where(assigned > 0.0, products, -jnp.inf), axis=0)
    shares = assigned * jnp.exp(jnp.minimum(products - largest[None, :], 0.0))
    return normalized(items + shares.T @ queries)


def mnad_rule(hyper: Hyperparameters) -> Rule:
    """MNAD with `compactness_weight`, `separateness_weight` and `margin`.

    The items are state, moved by `updated_items` and by no gradient.
    """

    def read(request: Request) -> Answer:
        weights = softmax(request.compare(request.query, request.items))
        return Answer(weights @ request.items, weights)

    def update(state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        return {"memory_items": updated_items(state["memory_items"], reads.queries)}

    def losses(reads: BatchReads) -> dict[str, jax.Array]:
        return {
            "compactness_loss": compactness_loss(reads),
            "separateness_loss": separateness_loss(reads, margin=hyper.margin),
        }

    return Rule(
        read,
        Properties("one", equivariant=True, nearest_when_cold=True),
        init_state=lambda items: {"memory_items": normalized(items)},
        update=update,
        losses=losses,
        loss_weights=(
            ("compactness_loss", hyper.compactness_weight),
            ("separateness_loss", hyper.separateness_weight),
        ),
    )


def _nearest_distances(reads: BatchReads) -> tuple[jax.Array, jax.Array | None]:
    """Distances ``(M,)`` of the queries, scaled to length 1, to their two nearest items."""
    queries = normalized(reads.queries)
    count = min(2, reads.items.shape[0])
    products = queries @ normalized(reads.items).T
    _, positions = jax.lax.top_k(products, count)
    distances = [_distance(queries, reads.items[positions[:, index]]) for index in range(count)]
    return distances[0], distances[1] if count > 1 else None


def _distance(first: jax.Array, second: jax.Array) -> jax.Array:
    squared = jnp.sum(jnp.square(first - second), axis=-1)
    positive = squared > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
