"""Addressing rules: how a query reads the items of a memory.

A rule is a pure read of one query; `daad_jax.memory` spreads it over blocks and images by
`jax.vmap`. ``memory.addressing`` names one of `RULES`, or a user's own as ``module:function``;
``memory.similarity`` names one of `SIMILARITIES`.
"""

from collections.abc import Callable

from daad_jax.addressing.codebook import nearest, nearest_ema_rule, nearest_rule
from daad_jax.addressing.custom import check_name, check_shapes, is_custom, loaded, permit
from daad_jax.addressing.dense import (
    gumbel,
    gumbel_rule,
    hard_shrinkage,
    hard_shrinkage_rule,
    mean,
    mean_rule,
    softmax,
    softmax_rule,
    threshold,
    threshold_renormalized,
    threshold_renormalized_rule,
    threshold_rule,
    top_k,
    top_k_rule,
)
from daad_jax.addressing.interface import (
    DIAGNOSTICS,
    Answer,
    BatchReads,
    Hyperparameters,
    Properties,
    Request,
    Rule,
    Weigh,
    as_rule,
    of_weights,
)
from daad_jax.addressing.mnad import mnad_rule
from daad_jax.addressing.retrieval import hopfield, hopfield_rule, product_key_rule
from daad_jax.addressing.similarity import SIMILARITIES
from daad_jax.addressing.simplex import entmax, entmax15, entmax_rule, sparsemax, sparsemax_rule
from daad_jax.errors import ConfigError, shown, suggestion

__all__ = [
    "DIAGNOSTICS",
    "RULES",
    "SIMILARITIES",
    "Answer",
    "BatchReads",
    "Hyperparameters",
    "Properties",
    "Request",
    "Rule",
    "Weigh",
    "as_rule",
    "check_rule",
    "check_shapes",
    "entmax",
    "entmax15",
    "get_rule",
    "gumbel",
    "hard_shrinkage",
    "hopfield",
    "is_custom",
    "mean",
    "nearest",
    "of_weights",
    "permit",
    "softmax",
    "sparsemax",
    "threshold",
    "threshold_renormalized",
    "top_k",
]

DEFAULTS = Hyperparameters()

RULES: dict[str, Callable[[Hyperparameters], Rule]] = {
    "softmax": softmax_rule,
    "threshold": threshold_rule,
    "threshold_renormalized": threshold_renormalized_rule,
    "hard_shrinkage": hard_shrinkage_rule,
    "top_k": top_k_rule,
    "sparsemax": sparsemax_rule,
    "entmax": entmax_rule,
    "gumbel": gumbel_rule,
    "nearest": nearest_rule,
    "nearest_ema": nearest_ema_rule,
    "hopfield": hopfield_rule,
    "product_key": product_key_rule,
    "mnad": mnad_rule,
    "mean": mean_rule,
}


def check_rule(name: str) -> None:
    """Checks the name of a rule; imports nothing.

    Raises:
        ConfigError: if there is none of that name, or it is not ``module:function``.
    """
    if is_custom(name):
        check_name(name)
    elif name not in RULES:
        raise ConfigError(f"memory.addressing: no rule {shown(name)}; {suggestion(name, RULES)}")


def get_rule(name: str, hyperparameters: Hyperparameters = DEFAULTS) -> Rule:
    """Returns the rule that ``memory.addressing`` names.

    Raises:
        ConfigError: if there is none of that name, or it is a user's own that `permit` did not
            import.
    """
    check_rule(name)
    return loaded(name) if is_custom(name) else RULES[name](hyperparameters)
