"""Vector quantisation: reads of the nearest item with the straight-through gradient (VQ-VAE)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from daad_jax.addressing.rule import (
    Answer,
    Arrays,
    BatchReads,
    Properties,
    Request,
    Rule,
    hyperparameter,
)
from daad_jax.addressing.selection import are_largest
from daad_jax.addressing.similarity import matmul

_LEAST_COUNT = 1e-6


class _OneItem(Rule):
    """Reads the most similar item alone (van den Oord et al., NeurIPS 2017, Eq. 1)."""

    properties = Properties(
        "one", equivariant=True, nearest_when_cold=True, most_active=1, straight_through=True
    )

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """One-hot weights ``(N,)`` without gradient; the first of equally similar items wins."""
        return are_largest(similarities, 1).astype(similarities.dtype)

    def read(self, request: Request) -> Answer:
        """Reads one item; the gradient of the block is passed to the query (Section 3.2)."""
        block, weights = super().read(request)
        straight = request.query - jax.lax.stop_gradient(request.query)
        return Answer(jax.lax.stop_gradient(block) + straight, weights)


@dataclass(frozen=True)
class Nearest(_OneItem):
    """VQ-VAE: reads the most similar item, with the codebook and commitment losses.

    The weights of both losses are at least 0.
    """

    codebook_weight: float = hyperparameter(1.0, at_least=0)
    commitment_weight: float = hyperparameter(0.25, at_least=0)

    def losses(self, reads: BatchReads) -> dict[str, jax.Array]:
        """The codebook and the commitment loss (Eq. 3), each a mean over reads and values."""
        return _distances(reads)


@dataclass(frozen=True)
class NearestEMA(_OneItem):
    """VQ-VAE whose items are moving averages of the queries that read them (Appendix A.1).

    The `decay` of the averages per training step is from 0 to below 1. `commitment_weight` is at
    least 0.
    """

    decay: float = hyperparameter(0.99, at_least=0, below=1)
    commitment_weight: float = hyperparameter(0.25, at_least=0)

    def init_state(self, items: jax.Array) -> dict[str, jax.Array]:
        """The items ``(N, D)``, their counts ``(N,)``, all 1, and their totals ``(N, D)``."""
        return {"memory_items": items, "count": jnp.ones(items.shape[0]), "total": items}

    def update(self, state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        """Updates the moving averages (Appendix A.1, Eq. 6 to 8).

        ``n <- g n + (1 - g) n_t``, ``t <- g t + (1 - g) sum q`` and ``m = t / n`` with the decay g.
        ``n_t`` counts the queries q that read the item in this step. An item whose count n has
        fallen to 1e-6 keeps its value.
        """
        weights, queries = jax.lax.stop_gradient((reads.weights, reads.queries))
        count = self.decay * state["count"] + (1.0 - self.decay) * jnp.sum(weights, axis=0)
        total = self.decay * state["total"] + (1.0 - self.decay) * matmul(weights.T, queries)
        alive = (count > _LEAST_COUNT)[:, None]
        moved = total / jnp.maximum(count, _LEAST_COUNT)[:, None]
        items = jnp.where(alive, moved, state["memory_items"])
        return {"memory_items": items, "count": count, "total": total}

    def losses(self, reads: BatchReads) -> dict[str, jax.Array]:
        """The commitment loss, a mean over reads and values."""
        return {"commitment_loss": _distances(reads)["commitment_loss"]}


def _distances(reads: BatchReads) -> dict[str, jax.Array]:
    # Second and third term of Eq. 3: the former moves items to queries, the latter the reverse.
    queries, chosen, stop = reads.queries, matmul(reads.weights, reads.items), jax.lax.stop_gradient
    return {
        "codebook_loss": jnp.mean(jnp.square(stop(queries) - chosen)),
        "commitment_loss": jnp.mean(jnp.square(queries - stop(chosen))),
    }
