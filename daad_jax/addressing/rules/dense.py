"""Rules based on the softmax of the similarities, and the mean item as a control."""

from dataclasses import dataclass
from typing import ClassVar

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
from daad_jax.errors import ConfigError
from daad_jax.runtime import sharding

# In float32 exp(-log N) is below 1/N for many N; a uniform row must keep every item.
_TIE_TOLERANCE = 1e-5
_SHRINK_EPSILON = 1e-12


class Softmax(Rule):
    """Softmax of the similarities, Eq. (1): ``w_i = exp(s_i) / sum_j exp(s_j)``.

    ``s_i`` is the similarity of the query and item i, divided by the temperature. The paper uses
    the cosine and temperature 1. The weights are in [0, 1] and sum to one.
    """

    properties = Properties("one", equivariant=True, nearest_when_cold=True)

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Softmax of finite similarities ``(N,)``: weights ``(N,)`` that sum to one."""
        return jax.nn.softmax(similarities)


@dataclass(frozen=True)
class _Cut(Rule):
    """A rule that drops softmax weights below ``cut / N``."""

    cut: float = hyperparameter(1.0, at_least=0)

    @property
    def properties(self) -> Properties:
        """The declared properties."""
        return Properties("at_most_one", equivariant=True, nearest_when_cold=True)

    def check(self, items: int, size: int, *, frozen: bool) -> None:
        """As in `Rule`; also raises ConfigError if `cut` exceeds N, which drops every weight."""
        if self.cut > items:
            raise ConfigError(
                f"memory.addressing: {self}: no weight reaches cut/N with {items} items; set cut "
                "to at most memory.items"
            )
        super().check(items, size, frozen=frozen)


class Threshold(_Cut):
    """DAAD's rule: softmax weights without those below ``cut / N`` (Section 3.1.2).

    A weight equal to the limit is kept, up to a relative tolerance of 1e-5. The kept weights are
    not rescaled, so their sum is at most one.

    `cut` is at least 0; the paper uses 1. With a cut above 1 a read may drop every weight; its
    block is then zero.
    """

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Thresholded softmax of finite similarities ``(N,)``: weights ``(N,)`` in [0, 1]."""
        weights = _softmax(similarities)
        floor = (1.0 - _TIE_TOLERANCE) * self.cut / similarities.shape[0]
        return jnp.where(weights >= floor, weights, 0.0).astype(similarities.dtype)


class ThresholdRenormalized(_Cut):
    """`Threshold` with the kept weights scaled to sum to one.

    `cut` is at least 0. With a cut above 1 a read may drop every weight; its block is then zero.
    """

    @property
    def properties(self) -> Properties:
        """The declared properties."""
        total = "one" if self.cut <= 1 else "at_most_one"
        return Properties(total, equivariant=True, nearest_when_cold=True)

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Renormalised thresholded softmax of finite similarities ``(N,)``: weights ``(N,)``."""
        wide = similarities.astype(jnp.promote_types(similarities.dtype, jnp.float32))
        kept = Threshold(self.cut).weigh(wide, params)
        total = jnp.sum(kept)
        # A cut of at most 1 always keeps the largest weight, so there is no division by zero.
        kept = kept / (total if self.cut <= 1.0 else jnp.where(total > 0.0, total, 1.0))
        return kept.astype(similarities.dtype)


@dataclass(frozen=True)
class HardShrinkage(_Cut):
    """MemAE's hard shrinkage in its continuous form, scaled to sum to one, with an entropy loss.

    ``w'_i = max(w_i - c, 0) w_i / (|w_i - c| + epsilon)`` of the softmax weights w with
    ``c = cut / N``, then ``w' / ||w'||_1`` (Gong et al., ICCV 2019, Section 3.3.3; epsilon 1e-12 as
    in the authors' code). If no softmax weight is above c, all weights are zero.

    `cut` is at least 0; the paper uses values from 1 to 3. `entropy_weight` is at least 0.
    """

    entropy_weight: float = hyperparameter(0.0002, at_least=0)

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Shrunk softmax of finite similarities ``(N,)``: weights ``(N,)`` in [0, 1]."""
        weights = _softmax(similarities)
        above = weights - self.cut / similarities.shape[0]
        shrunk = jax.nn.relu(above) * weights / (jnp.abs(above) + _SHRINK_EPSILON)
        shrunk = shrunk / jnp.maximum(jnp.sum(shrunk), _SHRINK_EPSILON)
        return shrunk.astype(similarities.dtype)

    def losses(self, reads: BatchReads) -> dict[str, jax.Array]:
        """The mean over reads of ``sum_i -w_i log w_i``; zero weights add 0 and no gradient."""
        positive = reads.weights > 0.0
        logarithms = jnp.log(jnp.where(positive, reads.weights, 1.0))
        return {"entropy_loss": jnp.mean(jnp.sum(-reads.weights * logarithms, axis=-1))}


@dataclass(frozen=True)
class TopK(Rule):
    """Softmax over the k most similar items; the other weights are zero.

    Sparse access memory (Rae et al., NeurIPS 2016, Section 3.1, Eq. 4), with an exact search. The
    paper keeps the k largest weights of the softmax over all items; here they sum to one.

    k is at least 1 and at most N. Of equally similar items the first ones are taken.
    """

    k: int = hyperparameter(4, at_least=1)

    @property
    def properties(self) -> Properties:
        """The declared properties."""
        return Properties("one", equivariant=True, nearest_when_cold=True, most_active=self.k)

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Softmax of the k largest of finite similarities ``(N,)``: weights ``(N,)``."""
        return top_k(similarities, self.k)

    def check(self, items: int, size: int, *, frozen: bool) -> None:
        """As in `Rule`; also raises ConfigError if k exceeds N."""
        check_k(self, self.k, items)
        super().check(items, size, frozen=frozen)


class Mean(Rule):
    """The mean item for every query: a control whose memory ignores the query."""

    properties = Properties("one", equivariant=True)

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Weights ``(N,)``, each 1/N."""
        return jnp.full_like(similarities, 1.0 / similarities.shape[0])


@dataclass(frozen=True)
class Gumbel(Rule):
    """Gumbel-softmax (Jang et al., ICLR 2017, Eq. 2); the similarities are log-probabilities.

    ``w_i = exp((s_i + g_i) / tau) / sum_j exp((s_j + g_j) / tau)``. In training ``g_i`` is drawn
    from Gumbel(0, 1). In evaluation it is zero, whereas the paper takes the largest item alone. The
    temperature is ``tau = max(end, start exp(-rate step))`` (Section 4.2). The rule's state counts
    training steps; evaluation uses the temperature after the last one.

    `start`, the temperature at step 0, and `end`, the lowest temperature, are above 0. The decay
    `rate` per step is at least 0.
    """

    start: float = hyperparameter(1.0, above=0)
    end: float = hyperparameter(0.5, above=0)
    rate: float = hyperparameter(1e-3, at_least=0)
    needs_key: ClassVar[bool] = True

    properties = Properties("one", equivariant=True, nearest_when_cold=True)

    def read(self, request: Request) -> Answer:
        """Reads with noise if the request has a key."""
        similarities = request.compare(request.query, request.items)
        if request.key is not None:
            noise = jax.random.gumbel(request.key, similarities.shape, jnp.float32)
            similarities = similarities + noise.astype(similarities.dtype)
        temperature = self.temperature(request.state["steps"])
        weights = jax.nn.softmax(similarities / jnp.asarray(temperature, similarities.dtype))
        return Answer(matmul(weights, request.items), weights)

    def temperature(self, step: jax.Array | float) -> jax.Array:
        """The temperature tau at a training step."""
        return jnp.maximum(self.end, self.start * jnp.exp(-self.rate * step))

    def init_state(self, items: jax.Array) -> dict[str, jax.Array]:
        """The count of training steps, which starts at 0."""
        return {"steps": jnp.zeros(())}

    def update(self, state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        """Counts a training step."""
        return {"steps": state["steps"] + 1.0}


def top_k(similarities: jax.Array, k: int) -> jax.Array:
    """Softmax over the k largest similarities of ``(N,)``, or over all if N is below k."""
    k = min(k, similarities.shape[0])
    if sharding.on_several_devices():
        return jax.nn.softmax(similarities, where=are_largest(similarities, k))
    values, positions = jax.lax.top_k(similarities, k)  # the same, faster on one device
    return jnp.zeros_like(similarities).at[positions].set(jax.nn.softmax(values))


def check_k(rule: Rule, k: int, items: int) -> None:
    """Raises ConfigError if a rule's k exceeds the number of items."""
    if k > items:
        raise ConfigError(
            f"memory.addressing: {rule}: k={k} is more than memory.items={items}; set k to at most "
            "memory.items"
        )


def _softmax(similarities: jax.Array) -> jax.Array:
    """Softmax in at least float32."""
    wide = jnp.promote_types(similarities.dtype, jnp.float32)
    return jax.nn.softmax(similarities.astype(wide))
