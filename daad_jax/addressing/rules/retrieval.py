"""Rules that retrieve in several steps or through learned keys: Hopfield and product keys."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from daad_jax.addressing.rule import Answer, Properties, Request, Rule, hyperparameter
from daad_jax.addressing.rules.dense import check_k, top_k
from daad_jax.addressing.similarity import matmul
from daad_jax.errors import ConfigError


@dataclass(frozen=True)
class Hopfield(Rule):
    """Modern Hopfield retrieval in 1 to 50 steps (Ramsauer et al., ICLR 2021, Eq. 3).

    ``x <- M^T softmax(beta M x)``, starting from the query; beta is one over the temperature. One
    step is the read of `daad_jax.addressing.Softmax`.
    """

    steps: int = hyperparameter(1, at_least=1, at_most=50)

    @property
    def properties(self) -> Properties:
        """The declared properties."""
        # A later step can leave the nearest item for one with a larger dot product.
        return Properties("one", equivariant=True, nearest_when_cold=self.steps == 1)

    def read(self, request: Request) -> Answer:
        """Returns the last retrieved block ``(D,)`` and its weights ``(N,)``."""
        block = request.query
        for _ in range(self.steps):
            weights = jax.nn.softmax(request.compare(block, request.items))
            block = matmul(weights, request.items)
        return Answer(block, weights)


@dataclass(frozen=True)
class ProductKey(Rule):
    """Product keys (Lample et al., NeurIPS 2019): softmax over the k best of N learned keys.

    Each key is a pair of sub-keys, one for each half of the query; its similarity is the sum of the
    similarities of the halves. The items are the values. All N sums are computed; searching the k
    best of each half first, as in the paper, gives the same result.

    N must be a square, D even, and k from 1 to N.
    """

    k: int = hyperparameter(4, at_least=1)

    @property
    def properties(self) -> Properties:
        """The declared properties."""
        return Properties("one", most_active=self.k)

    def init_params(self, key: jax.Array, items: jax.Array) -> dict[str, jax.Array]:
        """Random sub-keys ``(2, sqrt(N), D / 2)`` with the root mean square of the items."""
        count, size = items.shape
        scale = jnp.sqrt(jnp.mean(jnp.square(items)))
        shape = (2, math.isqrt(count), size // 2)
        return {"subkeys": scale * jax.random.normal(key, shape, items.dtype)}

    def read(self, request: Request) -> Answer:
        """Reads the k most similar keys; with ``n = sqrt(N)``, key ``i n + j`` is the pair i, j."""
        first, second = jnp.split(request.query, 2)
        subkeys = request.params["subkeys"]
        rows, columns = request.compare(first, subkeys[0]), request.compare(second, subkeys[1])
        weights = top_k((rows[:, None] + columns[None, :]).reshape(-1), self.k)
        return Answer(matmul(weights, request.items), weights)

    def check(self, items: int, size: int, *, frozen: bool) -> None:
        """As in `Rule`; also raises ConfigError if N is not a square, D is odd or k exceeds N."""
        root = math.isqrt(items)
        if root**2 != items:
            nearest = max(1, round(math.sqrt(items))) ** 2
            raise ConfigError(
                f"memory.items: {items} is not a square, which product_key needs; try {nearest}"
            )
        if size % 2:
            raise ConfigError(
                f"memory.addressing: {self}: blocks of {size} values cannot be halved; change "
                "memory.division_rates or model.widths"
            )
        check_k(self, self.k, items)
        super().check(items, size, frozen=frozen)
