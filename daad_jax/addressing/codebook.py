"""Vector quantisation: the nearest item alone, with the straight-through gradient (VQ-VAE)."""

import jax
import jax.numpy as jnp

from daad_jax.addressing.interface import (
    Answer,
    Arrays,
    BatchReads,
    Hyperparameters,
    Properties,
    Request,
    Rule,
)

_LEAST_COUNT = 1e-6
_PROPERTIES = Properties(
    "one", equivariant=True, nearest_when_cold=True, most_active=1, straight_through=True
)


def nearest(similarities: jax.Array) -> jax.Array:
    """Weight one for the most similar item (van den Oord et al., NeurIPS 2017, Eq. 1).

    Args:
        similarities: ``(N,)``, finite.

    Returns:
        ``(N,)``, one-hot and without gradient; of equal similarities the first item counts.
    """
    chosen = jnp.argmax(similarities)
    return jax.nn.one_hot(chosen, similarities.shape[0], dtype=similarities.dtype)


def straight_through(query: jax.Array, block: jax.Array) -> jax.Array:
    """The block, whose gradient goes to the query as if it were the query (Section 3.2)."""
    return jax.lax.stop_gradient(block) + (query - jax.lax.stop_gradient(query))


def codebook_loss(reads: BatchReads) -> jax.Array:
    """``||sg[q] - m||^2``, which moves the items to the queries (Eq. 3, second term); a mean."""
    chosen = reads.weights @ reads.items
    return jnp.mean(jnp.square(jax.lax.stop_gradient(reads.queries) - chosen))


def commitment_loss(reads: BatchReads) -> jax.Array:
    """``||q - sg[m]||^2``, which keeps the queries at the items (Eq. 3, third term); a mean."""
    chosen = reads.weights @ reads.items
    return jnp.mean(jnp.square(reads.queries - jax.lax.stop_gradient(chosen)))


def moved_average(state: Arrays, reads: BatchReads, *, decay: float) -> dict[str, jax.Array]:
    """The items as running means of the queries that chose them (Appendix A.1, Eq. 6 to 8).

    ``n <- g n + (1 - g) n_t``, ``t <- g t + (1 - g) sum q``, ``m = t / n``. An item that nothing
    has chosen for so long that n has vanished stays where it is.

    Args:
        state: ``memory_items`` (N, D), ``count`` (N,) and ``total`` (N, D).
        reads: of the batch; their weights are one-hot.
        decay: g.
    """
    weights, queries = jax.lax.stop_gradient((reads.weights, reads.queries))
    count = decay * state["count"] + (1.0 - decay) * jnp.sum(weights, axis=0)
    total = decay * state["total"] + (1.0 - decay) * (weights.T @ queries)
    alive = (count > _LEAST_COUNT)[:, None]
    moved = total / jnp.maximum(count, _LEAST_COUNT)[:, None]
    items = jnp.where(alive, moved, state["memory_items"])
    return {"memory_items": items, "count": count, "total": total}


def _read(request: Request) -> Answer:
    weights = nearest(request.compare(request.query, request.items))
    return Answer(straight_through(request.query, weights @ request.items), weights)


def nearest_rule(hyper: Hyperparameters) -> Rule:
    """`nearest` with `codebook_weight` and `commitment_weight`."""
    return Rule(
        _read,
        _PROPERTIES,
        losses=lambda reads: {
            "codebook_loss": codebook_loss(reads),
            "commitment_loss": commitment_loss(reads),
        },
        loss_weights=(
            ("codebook_loss", hyper.codebook_weight),
            ("commitment_loss", hyper.commitment_weight),
        ),
    )


def nearest_ema_rule(hyper: Hyperparameters) -> Rule:
    """`nearest` with `moved_average` by `ema_decay` in the codebook loss's place."""

    def init_state(items: jax.Array) -> dict[str, jax.Array]:
        return {"memory_items": items, "count": jnp.ones(items.shape[0]), "total": items}

    def update(state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        return moved_average(state, reads, decay=hyper.ema_decay)

    return Rule(
        _read,
        _PROPERTIES,
        init_state=init_state,
        update=update,
        losses=lambda reads: {"commitment_loss": commitment_loss(reads)},
        loss_weights=(("commitment_loss", hyper.commitment_weight),),
    )
