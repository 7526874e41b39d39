"""A new rule: one new file in `rules/`, or a module outside the package that is named in text."""

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.addressing import (
    RULES,
    Rule,
    Softmax,
    TopK,
    Weighing,
    contract,
    parse_rule,
    read,
    rules,
)
from daad_jax.addressing.rule import call_text
from daad_jax.addressing.rules import dense
from daad_jax.errors import ConfigError

RULE = '''
from dataclasses import dataclass

import jax.numpy as jnp

from daad_jax.addressing.rule import Properties, Rule, hyperparameter
from daad_jax.addressing.rules.dense import Softmax


@dataclass(frozen=True)
class FlatTop(Rule):
    """Equal weights for the k most similar items."""

    k: int = hyperparameter(2, at_least=1)

    @property
    def properties(self):
        return Properties("one", equivariant=True, most_active=self.k)

    def weigh(self, similarities, params):
        k = min(self.k, len(similarities))
        best = jnp.argsort(-similarities)[:k]
        return jnp.zeros_like(similarities).at[best].set(1.0 / k)


class _Hidden(FlatTop):
    """A private base class is no rule."""
'''
MODULE = (
    RULE
    + '''
import pathlib

pathlib.Path(__file__).with_suffix(".imported").touch()


def sharpest(similarities, power=2, shift=0.0):
    """The softmax weights to a power, scaled to sum to one."""
    weights = jnp.exp(power * (similarities - jnp.max(similarities)))
    return weights / jnp.sum(weights) + shift


BEST = FlatTop(k=1)
number = 3


class Picky(FlatTop):
    def __post_init__(self):
        raise ValueError("never")
'''
)
QUERY = jnp.array([1.0, 0.0])
ITEMS = jnp.array([[1.0, 0.1], [0.0, 1.0], [1.0, 0.0]])


@pytest.fixture
def own_rules(tmp_path, monkeypatch):
    """Path of a module `own_rules` that creates a file when it is imported."""
    (tmp_path / "own_rules.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rules", raising=False)
    yield tmp_path / "own_rules.imported"
    sys.modules.pop("own_rules", None)


def parse_custom(text):
    return parse_rule(text, allow_custom_code=True)


def test_a_file_in_the_folder_of_rules_is_a_rule(tmp_path, monkeypatch):
    (tmp_path / "flat.py").write_text(RULE)
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    name = f"{rules.__name__}.flat"
    importlib.invalidate_caches()
    try:
        found = rules.find_rules()
        assert set(found) == {*RULES, "flat_top"}
        monkeypatch.setattr(rules, "RULES", found)
        rule = parse_rule("flat_top(k=1)")
        assert str(rule) == "flat_top(k=1)"
        assert parse_rule("flat_top") != rule
        contract.check(rule)
        with pytest.raises(ConfigError, match="memory.addressing: flat_top: k=0 must be at least"):
            parse_rule("flat_top(k=0)")
        with pytest.raises(ConfigError, match="no rule 'flat_to'; did you mean 'flat_top'"):
            parse_rule("flat_to")
    finally:
        sys.modules.pop(name, None)


def test_the_table_of_rules_holds_every_public_class():
    assert RULES["top_k"] is TopK
    assert RULES["softmax"] is Softmax
    assert not any(name.startswith("_") or name in ("rule", "weighing") for name in RULES)
    assert dense.Threshold in RULES.values()
    assert list(RULES) == sorted(RULES)


def test_every_rule_has_a_row_with_its_defaults_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "addressing.md").read_text()
    table = page.split("| rule with its defaults |")[1].split("\n\n")[0]
    documented = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    defaults = (
        call_text(name, {field.name: field.default for field in dataclasses.fields(make)})
        for name, make in RULES.items()
    )
    assert sorted(documented) == sorted(defaults)


@pytest.mark.parametrize(
    "text",
    [
        "own_rules:FlatTop(k=1)",
        "own_rules:FlatTop",
        "own_rules:sharpest(power=3)",
        "own_rules:BEST",
    ],
)
def test_a_rule_outside_the_package_reads_by_its_text(own_rules, text):
    rule = parse_custom(text)
    assert isinstance(rule, Rule)
    assert rule == parse_custom(text)
    assert hash(rule) == hash(parse_custom(text))
    assert parse_custom(str(rule)) == rule
    rule.check(8, 64, frozen=False)
    contract.check(rule)
    weights = read(QUERY, ITEMS, rule, return_weights=True).weights
    assert int(jnp.argmax(weights)) == (0 if "FlatTop" in text and "k=1" not in text else 2)


def test_arguments_reach_a_function(own_rules):
    rule = parse_custom("own_rules:sharpest(power=3)")
    assert isinstance(rule, Weighing)
    assert str(rule) == "own_rules:sharpest(power=3)"
    np.testing.assert_allclose(
        rule.weigh(ITEMS[:, 0], {}), jax.nn.softmax(3 * ITEMS[:, 0]), rtol=1e-5
    )
    ordered = parse_custom("own_rules:sharpest(power=1, shift=0.5)")
    assert ordered == parse_custom("own_rules:sharpest(shift=0.5, power=1)")


def test_a_function_without_a_signature_is_a_rule():
    rule = parse_custom("builtins:min")  # inspect.signature fails for it
    assert rule == Weighing(min)
    with pytest.raises(ConfigError, match="memory.addressing: builtins:min: with 8 items"):
        rule.check(8, 64, frozen=False)


def test_custom_code_is_not_imported_without_permission(own_rules):
    for text in ("own_rules:sharpest", "own_rules:FlatTop(k=1)", "own_rules:BEST"):
        with pytest.raises(ConfigError, match="not run without permission.*--allow_custom_code"):
            parse_rule(text)
    assert not own_rules.exists()
    parse_custom("own_rules:sharpest")
    assert own_rules.exists()
    with pytest.raises(ConfigError, match="not run without permission"):
        parse_rule("own_rules:sharpest")  # also after the module was imported


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere_at_all:sharpest", "importing nowhere_at_all failed"),
        ("own_rules:sharper", "own_rules has no function, Rule or subclass of Rule sharper"),
        ("own_rules:number", "own_rules has no function, Rule or subclass of Rule number"),
        ("pathlib:Path", "pathlib has no function, Rule or subclass of Rule Path"),
        ("own_rules:sharpest(pwer=2)", r"own_rules:sharpest\(pwer=2\): got an unexpected keyword"),
        ("own_rules:sharpest(similarities=2)", "multiple values for argument 'similarities'"),
        ("own_rules:FlatTop(kk=2)", "own_rules:FlatTop has no argument 'kk'; did you mean 'k'"),
        ("own_rules:FlatTop(k=0)", "flat_top: k=0 must be at least 1"),
        ("own_rules:BEST(k=1)", "own_rules:BEST is a rule already; write it without arguments"),
        ("own_rules:Picky", "own_rules:Picky: ValueError: never"),
        *(
            (f"own_rules:sharpest(power={value})", "cannot be read; write each once as name=value")
            for value in ("[1]", "{1}", "b'1'", "...", "1j", "1e999", "(1, [2])", "(1, -1e999)")
        ),
    ],
)
def test_custom_code_that_cannot_be_used_is_one_line(own_rules, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_custom(text)
    assert str(caught.value).startswith("memory.addressing: ")
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_to_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_rules.py").write_text("def broken(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="importing broken_rules failed") as caught:
        parse_custom("broken_rules:any")
    assert "\n" not in str(caught.value)
