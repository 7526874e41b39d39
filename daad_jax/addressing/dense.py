"""Rules on the softmax of the similarities: as it is, cut, shrunk, of the best k, with noise."""

import functools

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
    of_weights,
)

# exp(-log N) falls below 1/N in float32 for hundreds of N; a uniform row must keep every item.
_TIE_TOLERANCE = 1e-5
_SHRINK_EPSILON = 1e-12


def softmax(similarities: jax.Array) -> jax.Array:
    """Addressing weights by a softmax over the items, Eq. (1).

    ``w_i = exp(s_i) / sum_j exp(s_j)`` with ``s_i`` the cosine similarity of the query and item i
    (divided by a temperature, 1 in the paper).

    Args:
        similarities: ``(N,)``, finite.

    Returns:
        ``(N,)`` weights in [0, 1] that sum to one.
    """
    return jax.nn.softmax(similarities)


def threshold(similarities: jax.Array, *, renormalize: bool = False, cut: float = 1.0) -> jax.Array:
    """Softmax weights without those below 1/N (Section 3.1.2): DAAD's own rule.

    A weight that equals the cut is kept, compared with a relative tolerance of 1e-5.

    Args:
        similarities: ``(N,)``, finite.
        renormalize: whether the kept weights are scaled to sum to one. The paper only drops.
        cut: what a weight must reach, as a multiple of 1/N; above 1 every weight may be dropped.

    Returns:
        ``(N,)`` weights in [0, 1]; their sum is at most one, or one when renormalised and any is
        kept.
    """
    weights = softmax(_widened(similarities))
    floor = (1.0 - _TIE_TOLERANCE) * cut / similarities.shape[0]
    kept = jnp.where(weights >= floor, weights, 0.0)
    if renormalize:
        total = jnp.sum(kept)
        # Up to 1/N the largest weight is always kept, and there is nothing to guard.
        kept = kept / (total if cut <= 1.0 else jnp.where(total > 0.0, total, 1.0))
    return kept.astype(similarities.dtype)


def threshold_renormalized(similarities: jax.Array, *, cut: float = 1.0) -> jax.Array:
    """`threshold` with the kept weights scaled to sum to one; shapes as there."""
    return threshold(similarities, renormalize=True, cut=cut)


def hard_shrinkage(similarities: jax.Array, *, cut: float = 1.0) -> jax.Array:
    """MemAE's hard shrinkage in its continuous form, then scaled to sum to one.

    ``w'_i = max(w_i - c, 0) w_i / (|w_i - c| + epsilon)`` of the softmax weights w, then
    ``w' / ||w'||_1`` (Gong et al., ICCV 2019, Section 3.3.3; epsilon 1e-12 as in the authors'
    code). The paper takes c from 1/N to 3/N.

    Args:
        similarities: ``(N,)``, finite.
        cut: c as a multiple of 1/N.

    Returns:
        ``(N,)`` weights that sum to one, or all zero where no weight is above c.
    """
    weights = softmax(_widened(similarities))
    above = weights - cut / similarities.shape[0]
    shrunk = jax.nn.relu(above) * weights / (jnp.abs(above) + _SHRINK_EPSILON)
    shrunk = shrunk / jnp.maximum(jnp.sum(shrunk), _SHRINK_EPSILON)
    return shrunk.astype(similarities.dtype)


def _widened(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def entropy_loss(weights: jax.Array) -> jax.Array:
    """MemAE's sparsity loss: the mean over reads of ``sum_i -w_i log w_i`` (Gong et al., 2019).

    Args:
        weights: ``(M, N)``, not negative; 0 log 0 is 0, without gradient.
    """
    positive = weights > 0.0
    logarithms = jnp.log(jnp.where(positive, weights, 1.0))
    return jnp.mean(jnp.sum(-weights * logarithms, axis=-1))


def top_k(similarities: jax.Array, *, k: int) -> jax.Array:
    """A softmax over the k most similar items; the others get nothing.

    Sparse access memory (Rae et al., NeurIPS 2016, Section 3.1, Eq. 4), with an exact search. There
    the k largest weights of the softmax over all items are kept as they are; here they are scaled
    to sum to one, which makes them a softmax over k.

    Args:
        similarities: ``(N,)``, finite.
        k: how many; all where N is less. Of equal similarities the first items count.

    Returns:
        ``(N,)`` weights that sum to one, at most k of them above zero.
    """
    values, positions = jax.lax.top_k(similarities, min(k, similarities.shape[0]))
    return jnp.zeros_like(similarities).at[positions].set(softmax(values))


def mean(similarities: jax.Array) -> jax.Array:
    """The mean item for every query: a control, whose memory cannot tell blocks apart."""
    return jnp.full_like(similarities, 1.0 / similarities.shape[0])


def gumbel_temperature(step: jax.Array, *, start: float, end: float, rate: float) -> jax.Array:
    """``max(end, start exp(-rate step))``, the schedule of Jang et al. (ICLR 2017, Section 4.2)."""
    return jnp.maximum(end, start * jnp.exp(-rate * step))


def gumbel(
    similarities: jax.Array, temperature: jax.Array | float, key: jax.Array | None = None
) -> jax.Array:
    """Gumbel-softmax (Jang et al., ICLR 2017, Eq. 2), the similarities being log-probabilities.

    ``w_i = exp((s_i + g_i) / tau) / sum_j exp((s_j + g_j) / tau)`` with ``g_i`` from Gumbel(0, 1).

    Args:
        similarities: ``(N,)``, finite.
        temperature: tau.
        key: of the noise; None for none, as at evaluation, where the paper takes the largest alone.

    Returns:
        ``(N,)`` weights that sum to one.
    """
    if key is not None:
        noise = jax.random.gumbel(key, similarities.shape, jnp.float32)
        similarities = similarities + noise.astype(similarities.dtype)
    return softmax(similarities / jnp.asarray(temperature, similarities.dtype))


_ONE = Properties("one", equivariant=True, nearest_when_cold=True)


def softmax_rule(hyper: Hyperparameters) -> Rule:
    """`softmax`, without hyperparameters."""
    return of_weights(softmax, _ONE)


def threshold_rule(hyper: Hyperparameters) -> Rule:
    """`threshold` with `cut`."""
    return of_weights(
        functools.partial(threshold, cut=hyper.cut), _ONE._replace(total="at_most_one")
    )


def threshold_renormalized_rule(hyper: Hyperparameters) -> Rule:
    """`threshold_renormalized` with `cut`."""
    total = "one" if hyper.cut <= 1 else "at_most_one"
    return of_weights(
        functools.partial(threshold_renormalized, cut=hyper.cut), _ONE._replace(total=total)
    )


def hard_shrinkage_rule(hyper: Hyperparameters) -> Rule:
    """`hard_shrinkage` with `cut`, and `entropy_loss`."""
    return of_weights(
        functools.partial(hard_shrinkage, cut=hyper.cut),
        _ONE._replace(total="at_most_one"),
        losses=lambda reads: {"entropy_loss": entropy_loss(reads.weights)},
        loss_weights=(("entropy_loss", hyper.entropy_weight),),
    )


def top_k_rule(hyper: Hyperparameters) -> Rule:
    """`top_k` with `top_k`."""
    weigh = functools.partial(top_k, k=hyper.top_k)
    return of_weights(weigh, _ONE._replace(most_active=hyper.top_k))


def mean_rule(hyper: Hyperparameters) -> Rule:
    """`mean`, without hyperparameters."""
    return of_weights(mean, Properties("one", equivariant=True))


def gumbel_rule(hyper: Hyperparameters) -> Rule:
    """`gumbel` on the schedule of `gumbel_start`, `gumbel_end` and `gumbel_rate`.

    Its state counts the training steps; at evaluation the last step's temperature stays (with
    `train.average_decay` the averaged count's).
    """

    def read(request: Request) -> Answer:
        temperature = gumbel_temperature(
            request.state["steps"],
            start=hyper.gumbel_start,
            end=hyper.gumbel_end,
            rate=hyper.gumbel_rate,
        )
        similarities = request.compare(request.query, request.items)
        weights = gumbel(similarities, temperature, request.key)
        return Answer(weights @ request.items, weights)

    def update(state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        return {"steps": state["steps"] + 1.0}

    return Rule(
        read,
        _ONE,
        init_state=lambda items: {"steps": jnp.zeros(())},
        update=update,
        needs_key=True,
    )
