"""One suite over every rule, its variants and every similarity.

What the similarity cannot change of a rule is tried with the cosine only, unless with ``-m slow``.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import addressing
from daad_jax.addressing import DEFAULTS, RULES, Properties, Rule, contract, of_weights

VARIED = {
    **{name: make(DEFAULTS) for name, make in RULES.items()},
    "threshold cut 0.5": RULES["threshold"](DEFAULTS._replace(cut=0.5)),
    "threshold cut 3": RULES["threshold"](DEFAULTS._replace(cut=3.0)),
    "threshold_renormalized cut 3": RULES["threshold_renormalized"](DEFAULTS._replace(cut=3.0)),
    "hard_shrinkage cut 3": RULES["hard_shrinkage"](DEFAULTS._replace(cut=3.0)),
    "top_k 1": RULES["top_k"](DEFAULTS._replace(top_k=1)),
    "top_k 100": RULES["top_k"](DEFAULTS._replace(top_k=100)),
    "entmax 1.2": RULES["entmax"](DEFAULTS._replace(alpha=1.2)),
    "entmax 2": RULES["entmax"](DEFAULTS._replace(alpha=2.0)),
    "entmax learned": RULES["entmax"](DEFAULTS._replace(learned_alpha=True)),
    "hopfield 3": RULES["hopfield"](DEFAULTS._replace(retrieval_steps=3)),
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


@pytest.mark.parametrize("check", contract.CHECKS)
@pytest.mark.parametrize("name", VARIED)
def test_every_rule_holds_to_the_contract(check, name):
    everywhere = name in RULES and check in SIMILARITY_MATTERS
    for similarity in addressing.SIMILARITIES if everywhere else ["cosine"]:
        contract.CHECKS[check](VARIED[name], similarity)


@pytest.mark.slow
@pytest.mark.parametrize("similarity", [one for one in addressing.SIMILARITIES if one != "cosine"])
@pytest.mark.parametrize("name", VARIED)
def test_every_variant_holds_to_the_contract_with_every_similarity(name, similarity):
    for check in contract.CHECKS.values():
        check(VARIED[name], similarity)


def test_what_is_declared_is_what_is_known_of_the_rules():
    declared = {name: tuple(make(DEFAULTS).properties) for name, make in RULES.items()}
    assert declared == DECLARED


def softmax(similarities):
    return jax.nn.softmax(similarities)


WRONG = {
    "sums_as_declared": of_weights(lambda s: 2 * softmax(s), Properties("at_most_one")),
    "gradients_are_finite": of_weights(lambda s: jnp.sqrt(jnp.abs(s))),
    "weights_permute": of_weights(
        lambda s: softmax(s).at[0].mul(0.5), Properties(equivariant=True)
    ),
    "nearest_when_cold": of_weights(lambda s: softmax(-s), Properties(nearest_when_cold=True)),
    "bfloat16_works": of_weights(
        lambda s: jnp.where(s.dtype == jnp.bfloat16, 1.1, 1.0) * softmax(s), Properties("one")
    ),
    "noise_is_for_training": of_weights(softmax, needs_key=True),
    "gradient_reaches_the_query": of_weights(softmax, Properties(straight_through=True)),
    "losses_and_state_are_sound": of_weights(
        softmax, losses=lambda reads: {"log": jnp.mean(jnp.log(reads.queries))}
    ),
}


@pytest.mark.parametrize("check", WRONG)
def test_the_contract_finds_a_rule_that_breaks_it(check):
    with pytest.raises(AssertionError, match=check):
        contract.check(WRONG[check])


def test_the_contract_finds_too_many_items_and_negative_weights():
    with pytest.raises(AssertionError, match="items are active"):
        contract.check(of_weights(softmax, Properties("one", most_active=3)))
    with pytest.raises(AssertionError, match="a weight is -"):
        contract.check(lambda similarities: softmax(similarities) - 0.01)


def test_the_contract_finds_a_state_of_another_shape():
    rule = Rule(
        VARIED["softmax"].read,
        init_state=lambda items: {"count": jnp.zeros(3)},
        update=lambda state, reads: {"count": jnp.zeros(4)},
    )
    with pytest.raises(AssertionError, match="losses_and_state_are_sound.*shapes"):
        contract.check(rule)


def test_one_step_of_hopfield_is_softmax():
    queries, items = contract.bank()
    for query in queries:
        one = contract.read(VARIED["hopfield"], query, items, temperature=0.3)
        plain = contract.read(VARIED["softmax"], query, items, temperature=0.3)
        np.testing.assert_array_equal(one.weights, plain.weights)
        np.testing.assert_array_equal(one.block, plain.block)
