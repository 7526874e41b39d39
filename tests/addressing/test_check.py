"""`Rule.check`: what does not fit a bank is one line before training, and nothing is computed."""

import jax
import jax.numpy as jnp
import pytest

from daad_jax.addressing import (
    MNAD,
    RULES,
    Answer,
    HardShrinkage,
    NearestEMA,
    ProductKey,
    Rule,
    Softmax,
    Threshold,
    ThresholdRenormalized,
    TopK,
    Weighing,
    contract,
)
from daad_jax.errors import ConfigError


@pytest.mark.parametrize("name", RULES)
def test_every_rule_fits_a_square_bank_of_even_size(name):
    RULES[name]().check(9, 8, frozen=False)


@pytest.mark.parametrize(
    ("rule", "items", "size", "message"),
    [
        (TopK(k=99), 8, 64, r"memory.addressing: top_k\(k=99\): k=99 is more than memory.items=8"),
        (ProductKey(k=5), 4, 64, r"product_key\(k=5\): k=5 is more than memory.items=4"),
        (ProductKey(), 8, 64, "memory.items: 8 is not a square, which product_key needs; try 9"),
        (ProductKey(), 9, 3, "memory.addressing: product_key: blocks of 3 values cannot be halved"),
        (Threshold(8.5), 8, 64, "no weight reaches cut/N with 8 items; set cut to at most"),
        (ThresholdRenormalized(8.5), 8, 64, "no weight reaches cut/N with 8 items"),
        (HardShrinkage(8.5), 8, 64, "no weight reaches cut/N with 8 items"),
    ],
    ids=str,
)
def test_a_bank_that_a_rule_cannot_read_is_named(rule, items, size, message):
    with pytest.raises(ConfigError, match=message):
        rule.check(items, size, frozen=False)


@pytest.mark.parametrize("name", RULES)
def test_only_rules_that_move_the_items_cannot_be_frozen(name):
    rule = RULES[name]()
    if isinstance(rule, MNAD | NearestEMA):
        with pytest.raises(ConfigError, match=f"memory.frozen: {name} moves the items; choose"):
            rule.check(9, 8, frozen=True)
    else:
        rule.check(9, 8, frozen=True)


class AlwaysNoisy(Rule):
    needs_key = True

    def read(self, request):
        noisy = request.query + jax.random.normal(request.key, request.query.shape)
        return Softmax().read(request._replace(query=noisy))


class ReservedLoss(Softmax):
    def losses(self, reads):
        return {"entropy": jnp.mean(reads.queries)}


class VectorLoss(Softmax):
    def losses(self, reads):
        return {"mine": jnp.mean(reads.queries, axis=1)}


class GrowingState(Softmax):
    def init_state(self, items):
        return {"count": jnp.zeros(())}

    def update(self, state, reads):
        return {"count": jnp.zeros(3)}


class ShortBlock(Rule):
    def read(self, request):
        block, weights = Softmax().read(request)
        return Answer(block[:3], weights)


WRONG = {
    "a read fails: TypeError: dot_general": Weighing(lambda s: s[:3]),
    r"a read returns a block \(3,\) and weights \(8,\); return": ShortBlock(),
    r"a read returns a block \(8, 64\) and weights \(8, 8\); return": Weighing(jnp.diag),
    "a read fails: TypeError: .*argument": Weighing(lambda one, two: one),
    "a read fails: .*bool": Weighing(lambda s: s if s[0] > 0 else 0 * s),
    "a read fails: AttributeError": Weighing(lambda hyper: hyper.cut),
    "a read fails: NotImplementedError: Rule overrides neither": Rule(),
    "a read fails: .*key": AlwaysNoisy(),
    "the loss 'entropy' is a reserved name": ReservedLoss(),
    r"the loss 'mine' has shape \(1,\); return a scalar": VectorLoss(),
    "update changes the names, shapes or dtypes of the state": GrowingState(),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_custom_rule_of_wrong_shapes_is_one_line(message):
    with pytest.raises(ConfigError, match=f"with 8 items of 64 values {message}") as caught:
        WRONG[message].check(8, 64, frozen=False)
    line = str(caught.value)
    assert line.startswith("memory.addressing: ")
    assert "\n" not in line
    with pytest.raises(AssertionError):
        contract.check(WRONG[message])


class TopItems(Softmax):
    def init_state(self, items):
        return {"top": jax.lax.top_k(items.sum(-1), 4)[0]}


def test_the_check_uses_the_shape_of_the_bank():
    TopItems().check(4, 2, frozen=False)
    with pytest.raises(ConfigError, match="with 3 items of 2 values a read fails"):
        TopItems().check(3, 2, frozen=False)


class Moving(Softmax):
    def init_state(self, items):
        return {"memory_items": items}


def test_a_custom_rule_that_moves_its_items_cannot_be_frozen():
    Moving().check(8, 64, frozen=False)
    with pytest.raises(ConfigError, match="memory.frozen: .*Moving moves the items"):
        Moving().check(8, 64, frozen=True)
