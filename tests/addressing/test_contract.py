"""The contract: every rule of the package passes it, and rules that break it fail.

Checks that do not depend on the similarity run with the cosine only, unless with ``-m slow``.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.addressing import (
    RULES,
    SIMILARITIES,
    Entmax,
    HardShrinkage,
    Hopfield,
    Properties,
    Rule,
    Softmax,
    Threshold,
    ThresholdRenormalized,
    TopK,
    Weighing,
    contract,
)

VARIED = {
    str(rule): rule
    for rule in (
        *(make() for make in RULES.values()),
        Threshold(cut=0.5),
        Threshold(cut=3.0),
        ThresholdRenormalized(cut=3.0),
        HardShrinkage(cut=3.0),
        TopK(k=1),
        TopK(k=100),
        Entmax(alpha=1.2),
        Entmax(alpha=2.0),
        Entmax(learned=True),
        Hopfield(steps=3),
    )
}
SIMILARITY_MATTERS = ("sums_as_declared", "gradients_are_finite", "nearest_when_cold")
DECLARED = {
    "softmax": ("one", True, True, None, False),
    "threshold": ("at_most_one", True, True, None, False),
    "threshold_renormalized": ("one", True, True, None, False),
    "hard_shrinkage": ("at_most_one", True, True, None, False),
    "top_k": ("one", True, True, 4, False),
    "sparsemax": ("one", True, True, None, False),
    "entmax": ("one", True, True, None, False),
    "gumbel": ("one", True, True, None, False),
    "nearest": ("one", True, True, 1, True),
    "nearest_ema": ("one", True, True, 1, True),
    "hopfield": ("one", True, True, None, False),
    "product_key": ("one", False, False, 4, False),
    "mnad": ("one", True, True, None, False),
    "mean": ("one", True, False, None, False),
}
READS_WHOLE_BATCH = {"gumbel", "hard_shrinkage", "mnad", "nearest", "nearest_ema"}


@pytest.mark.parametrize("check", contract.CHECKS)
@pytest.mark.parametrize("name", VARIED)
def test_every_rule_passes_the_contract(check, name):
    everywhere = name in RULES and check in SIMILARITY_MATTERS
    for similarity in SIMILARITIES if everywhere else ["cosine"]:
        contract.CHECKS[check](VARIED[name], similarity)


@pytest.mark.slow
@pytest.mark.parametrize("similarity", [one for one in SIMILARITIES if one != "cosine"])
@pytest.mark.parametrize("name", VARIED)
def test_every_variant_passes_the_contract_with_every_similarity(name, similarity):
    for check in contract.CHECKS.values():
        check(VARIED[name], similarity)


def test_the_declared_properties_are_the_known_ones():
    assert {name: tuple(make().properties) for name, make in RULES.items()} == DECLARED
    assert ThresholdRenormalized(cut=3.0).properties.total == "at_most_one"
    assert not Hopfield(steps=3).properties.nearest_when_cold
    assert {name for name, make in RULES.items() if make().reads_whole_batch} == READS_WHOLE_BATCH
    assert {name for name, make in RULES.items() if make.needs_key} == {"gumbel"}


def declaring(*args, function=jax.nn.softmax, **declared):
    """A rule of a function of the similarities that declares properties."""

    class Declaring(Rule):
        properties = Properties(*args, **declared)

        def weigh(self, similarities, params):
            return function(similarities)

    return Declaring()


class NoNoise(Softmax):
    needs_key: ClassVar[bool] = True


class LogOfNegatives(Softmax):
    def losses(self, reads):
        return {"log": jnp.mean(jnp.log(reads.queries))}


class GrowingState(Softmax):
    def init_state(self, items):
        return {"count": jnp.zeros(3)}

    def update(self, state, reads):
        return {"count": jnp.zeros(4)}


WRONG = {
    "is_a_value": Weighing(jax.nn.softmax, (("axis", [0]),)),
    "shapes_are_right": GrowingState(),
    "sums_as_declared": declaring("at_most_one", function=lambda s: 2 * jax.nn.softmax(s)),
    "gradients_are_finite": Weighing(lambda s: jnp.sqrt(jnp.abs(s))),
    "weights_permute": declaring(
        equivariant=True, function=lambda s: jax.nn.softmax(s).at[0].mul(0.5)
    ),
    "nearest_when_cold": declaring(nearest_when_cold=True, function=lambda s: jax.nn.softmax(-s)),
    "noise_is_for_training": NoNoise(),
    "gradient_reaches_the_query": declaring(straight_through=True),
    "losses_and_state_are_sound": LogOfNegatives(),
}


@pytest.mark.parametrize("check", WRONG)
def test_the_contract_rejects_a_rule_that_breaks_a_check(check):
    with pytest.raises(AssertionError, match=check):
        contract.check(WRONG[check])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (declaring("one", most_active=3), "items are active"),
        (
            declaring(
                "one",
                function=lambda s: jnp.where(s.dtype == jnp.bfloat16, 1.1, 1.0) * jax.nn.softmax(s),
            ),
            "weights sum to 1.1",
        ),
        (Weighing(lambda s: jax.nn.softmax(s) - 0.01), "a weight is -"),
        (GrowingState(), "update changes the names, shapes or dtypes"),
        (Rule(), "Rule overrides neither weigh nor read"),
    ],
    ids=["too many items", "bfloat16", "negative weights", "growing state", "nothing overridden"],
)
def test_the_contract_says_what_is_wrong(rule, message):
    with pytest.raises(AssertionError, match=message):
        contract.check(rule)


def test_one_step_of_hopfield_is_softmax():
    queries, items = contract.bank()
    for query in queries:
        one = contract.read(Hopfield(), query, items, temperature=0.3)
        plain = contract.read(Softmax(), query, items, temperature=0.3)
        np.testing.assert_array_equal(one.weights, plain.weights)
        np.testing.assert_array_equal(one.block, plain.block)
