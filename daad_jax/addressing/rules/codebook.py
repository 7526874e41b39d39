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
from daad_jax.addressing.similarity import matmul

_LEAST_COUNT = 1e-6


class _OneItem(Rule):
    """Reads the most similar item alone (van den Oord et al., NeurIPS 2017, Eq. 1)."""

    properties = Properties(
        "one", equivariant=True, nearest_when_cold=True, most_active=1, straight_through=True
    )

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """One-hot weights ``(N,)`` without gradient; of equal similarities the first is taken."""
        chosen = jnp.argmax(similarities)
        return jax.nn.one_hot(chosen, similarities.shape[0], dtype=similarities.dtype)

    def read(self, request: Request) -> Answer:
        """Reads one item; the gradient of the block is passed to the query (Section 3.2)."""
        block, weights = super().read(request)
        straight = request.query - jax.lax.stop_gradient(request.query)
        return Answer(jax.lax.stop_gradient(block) + straight, weights)


@dataclass(frozen=True)
class Nearest(_OneItem):
    """VQ-VAE: the most similar item, with the codebook and commitment losses.

    Attributes:
        codebook_weight: weight of the codebook loss, at least 0.
        commitment_weight: weight of the commitment loss, at least 0.
    """

    codebook_weight: float = hyperparameter(1.0, at_least=0)
    commitment_weight: float = hyperparameter(0.25, at_least=0)

    def losses(self, reads: BatchReads) -> dict[str, jax.Array]:
        """The codebook and the commitment loss."""
        return {"codebook_loss": codebook_loss(reads), "commitment_loss": commitment_loss(reads)}

    def loss_weights(self) -> dict[str, float]:
        """The weights of both losses."""
        return {"codebook_loss": self.codebook_weight, "commitment_loss": self.commitment_weight}


@dataclass(frozen=True)
class NearestEMA(_OneItem):
    """VQ-VAE whose items are moving averages of the queries that read them (Appendix A.1).

    Attributes:
        decay: decay of the averages per training step, from 0 to below 1.
        commitment_weight: weight of the commitment loss, at least 0.
    """

    decay: float = hyperparameter(0.99, at_least=0, below=1)
    commitment_weight: float = hyperparameter(0.25, at_least=0)

    def init_state(self, items: jax.Array) -> dict[str, jax.Array]:
        """The items ``(N, D)``, a count ``(N,)`` of one each and their total ``(N, D)``."""
        return {"memory_items": items, "count": jnp.ones(items.shape[0]), "total": items}

    def update(self, state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        """Updates the moving averages (Appendix A.1, Eq. 6 to 8).

        ``n <- g n + (1 - g) n_t``, ``t <- g t + (1 - g) sum q`` and ``m = t / n`` with the decay g.
        An item whose count has fallen to 1e-6 keeps its value.
        """
        weights, queries = jax.lax.stop_gradient((reads.weights, reads.queries))
        count = self.decay * state["count"] + (1.0 - self.decay) * jnp.sum(weights, axis=0)
        total = self.decay * state["total"] + (1.0 - self.decay) * matmul(weights.T, queries)
        alive = (count > _LEAST_COUNT)[:, None]
        moved = total / jnp.maximum(count, _LEAST_COUNT)[:, None]
        items = jnp.where(alive, moved, state["memory_items"])
        return {"memory_items": items, "count": count, "total": total}

    def losses(self, reads: BatchReads) -> dict[str, jax.Array]:
        """The commitment loss."""
        return {"commitment_loss": commitment_loss(reads)}

    def loss_weights(self) -> dict[str, float]:
        """The weight of the commitment loss."""
        return {"commitment_loss": self.commitment_weight}


def codebook_loss(reads: BatchReads) -> jax.Array:
    """Mean over values of ``(sg[q] - m)^2``: moves items to queries (Eq. 3, second term)."""
    chosen = matmul(reads.weights, reads.items)
    return jnp.mean(jnp.square(jax.lax.stop_gradient(reads.queries) - chosen))


def commitment_loss(reads: BatchReads) -> jax.Array:
    """Mean over values of ``(q - sg[m])^2``: moves queries to items (Eq. 3, third term)."""
    chosen = matmul(reads.weights, reads.items)
    return jnp.mean(jnp.square(reads.queries - jax.lax.stop_gradient(chosen)))
