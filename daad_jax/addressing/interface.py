"""What an addressing rule is: a pure read of one query, and what may go with it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Weigh = Callable[[jax.Array], jax.Array]
"""From the similarities ``(N,)`` of one query to addressing weights ``(N,)``."""

Compare = Callable[[jax.Array, jax.Array], jax.Array]
"""From a query ``(D,)`` and n items ``(n, D)`` to similarities over the temperature, ``(n,)``."""

Arrays = Mapping[str, jax.Array]


class Request(NamedTuple):
    """One read, as a rule sees it.

    Attributes:
        query: ``(D,)``, one flattened block.
        items: ``(N, D)``, the bank.
        compare: the similarity, divided by the temperature.
        params: what `Rule.init_params` made, learned since.
        state: what `Rule.init_state` made, updated since.
        key: this read's random key, or None where there is to be no noise.
    """

    query: jax.Array
    items: jax.Array
    compare: Compare
    params: Arrays
    state: Arrays
    key: jax.Array | None


class Answer(NamedTuple):
    """What a rule reads: the block ``(D,)`` and the addressing weights ``(N,)``."""

    block: jax.Array
    weights: jax.Array


class BatchReads(NamedTuple):
    """All reads that one bank answered for a batch: M of them.

    Attributes:
        queries: ``(M, D)``.
        items: ``(N, D)``.
        weights: ``(M, N)``.
    """

    queries: jax.Array
    items: jax.Array
    weights: jax.Array


class Properties(NamedTuple):
    """What a rule declares of itself; `daad_jax.addressing.contract` checks it.

    Attributes:
        total: what the weights of a read sum to: "one", "at_most_one" or "any".
        equivariant: whether weights permute with the items.
        nearest_when_cold: whether a read approaches the most similar item as the temperature
            approaches 0.
        most_active: the most items that a read takes, or None.
        straight_through: whether a block's gradient goes to the query as if it were the query.
    """

    total: str = "any"
    equivariant: bool = False
    nearest_when_cold: bool = False
    most_active: int | None = None
    straight_through: bool = False


NOTHING_DECLARED = Properties()
DIAGNOSTICS = frozenset(
    ("active_items", "largest_weight", "entropy", "dead_reads", "unused_items", "perplexity")
)
"""What is logged of every memory, ``memory/<scale>/...``: names that no loss of a rule may have."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """An addressing rule.

    Only `read` is needed; `of_weights` makes one of a function of the similarities.

    Attributes:
        read: the pure read of one query, which is vmapped over blocks and images.
        properties: what the rule declares.
        init_params: ``(key, items (N, D)) -> arrays`` that the optimiser learns beside the items.
        init_state: ``(items (N, D)) -> arrays`` that a step carries on without gradient. One called
            ``memory_items`` takes the place of the learned items.
        update: ``(state, reads of the batch) -> state``, after each training step.
        losses: ``reads of the batch -> scalars`` by name, added to the generator's loss.
        loss_weights: by name; a loss that is not named here counts once.
        needs_key: whether reads in training get a random key.
    """

    read: Callable[[Request], Answer]
    properties: Properties = NOTHING_DECLARED
    init_params: Callable[[jax.Array, jax.Array], dict[str, jax.Array]] | None = None
    init_state: Callable[[jax.Array], dict[str, jax.Array]] | None = None
    update: Callable[[Arrays, BatchReads], dict[str, jax.Array]] | None = None
    losses: Callable[[BatchReads], dict[str, jax.Array]] | None = None
    loss_weights: tuple[tuple[str, float], ...] = ()
    needs_key: bool = False


class Hyperparameters(NamedTuple):
    """The rules' hyperparameters: the fields of `daad_jax.config.MemoryConfig` of these names."""

    cut: float = 1.0
    top_k: int = 4
    alpha: float = 1.5
    learned_alpha: bool = False
    retrieval_steps: int = 1
    gumbel_start: float = 1.0
    gumbel_end: float = 0.5
    gumbel_rate: float = 1e-3
    ema_decay: float = 0.99
    margin: float = 1.0
    entropy_weight: float = 0.0002
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    compactness_weight: float = 0.1
    separateness_weight: float = 0.1


def of_weights(weigh: Weigh, properties: Properties = NOTHING_DECLARED, **rest: Any) -> Rule:
    """A rule whose block is the weighted sum of the items.

    Args:
        weigh: from the similarities ``(N,)`` of one query to weights ``(N,)``; pure.
        properties: what it declares.
        rest: further fields of the `Rule`.
    """

    def read(request: Request) -> Answer:
        weights = weigh(request.compare(request.query, request.items))
        return Answer(weights @ request.items, weights)

    return Rule(read, properties, **rest)


def as_rule(rule: Rule | Weigh) -> Rule:
    """A `Rule` as it is; a function of the similarities as a rule that declares nothing."""
    return rule if isinstance(rule, Rule) else of_weights(rule)
