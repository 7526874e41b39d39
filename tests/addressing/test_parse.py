"""Rules as text: round trip, comparison by value, errors of one line, and no evaluation."""

import dataclasses

import pytest

from daad_jax.addressing import (
    MNAD,
    RULES,
    Entmax,
    Gumbel,
    HardShrinkage,
    Hopfield,
    Nearest,
    NearestEMA,
    ProductKey,
    Threshold,
    ThresholdRenormalized,
    TopK,
    Weighing,
    parse_rule,
)
from daad_jax.errors import ConfigError

TEXTS = {
    "threshold(cut=2.5)": Threshold(cut=2.5),
    "threshold_renormalized(cut=0.5)": ThresholdRenormalized(cut=0.5),
    "hard_shrinkage(cut=3.0, entropy_weight=0.1)": HardShrinkage(3.0, 0.1),
    "top_k(k=8)": TopK(k=8),
    "entmax(alpha=1.2, learned=True)": Entmax(1.2, learned=True),
    "gumbel(start=2.0, end=0.25, rate=0.01)": Gumbel(2.0, 0.25, 0.01),
    "nearest(codebook_weight=0.5, commitment_weight=0.1)": Nearest(0.5, 0.1),
    "nearest_ema(decay=0.9, commitment_weight=0.1)": NearestEMA(0.9, 0.1),
    "hopfield(steps=3)": Hopfield(steps=3),
    "product_key(k=2)": ProductKey(k=2),
    "mnad(margin=0.5, compactness_weight=0.2, separateness_weight=0.3)": MNAD(0.5, 0.2, 0.3),
}


@pytest.mark.parametrize("text", [*TEXTS, *RULES])
def test_text_and_rule_are_each_others_inverse(text):
    rule = TEXTS[text] if text in TEXTS else RULES[text]()
    assert parse_rule(text) == rule
    assert hash(parse_rule(text)) == hash(rule)
    assert str(rule) == text
    assert type(parse_rule(text)) is type(rule)


def test_rules_compare_by_value():
    assert TopK(k=8) == TopK(k=8) != TopK(k=4)
    assert Threshold(cut=1) == Threshold(cut=1.0)
    assert str(Threshold(cut=2)) == "threshold(cut=2.0)"
    assert len({Threshold(), Threshold(), ThresholdRenormalized(), TopK()}) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        TopK().k = 3


def test_functions_with_equal_arguments_are_equal_rules():
    def power(similarities, power=1):
        return similarities**power

    def other(similarities):
        return similarities

    rule = Weighing(power, (("power", 2),))
    assert rule == Weighing(power, (("power", 2),), name="m:power")
    assert hash(rule) == hash(Weighing(power, (("power", 2),)))
    assert len({rule, Weighing(power), Weighing(power, (("power", 3),)), Weighing(other)}) == 4


@pytest.mark.parametrize(
    "text", [" top_k ( k = 8 ) ", "top_k(k=8,)", "top_k(\n  k=8\n)", "top_k(k=0x8)", "top_k(k=+8)"]
)
def test_spelling_does_not_matter(text):
    assert parse_rule(text) == TopK(k=8)
    assert parse_rule("top_k()") == TopK()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold", "no rule 'treshold'; did you mean 'threshold'?"),
        ("top_k(kk=3)", "top_k has no argument 'kk'; did you mean 'k'?"),
        ("softmax(cut=1)", "softmax has no argument 'cut'; it has none"),
        ("top_k(k=0)", "top_k: k=0 must be at least 1"),
        ("top_k(k=2.5)", "top_k: k=2.5 must be of type int"),
        ("top_k(k=True)", "top_k: k=True must be of type int"),
        ("top_k(k='4')", "top_k: k='4' must be of type int"),
        ("top_k(k=None)", "top_k: k=None must be of type int"),
        ("threshold(cut=-1)", "threshold: cut=-1 must be at least 0"),
        ("threshold(cut=False)", "threshold: cut=False must be of type float"),
        (f"threshold(cut={'9' * 400})", "must be finite"),
        ("hard_shrinkage(entropy_weight=-1)", "hard_shrinkage: entropy_weight=-1 must be at least"),
        ("entmax(alpha=1.0)", "entmax: alpha=1.0 must be at least 1.01 and at most 2"),
        ("entmax(learned=1)", "entmax: learned=1 must be of type bool"),
        ("entmax(alpha=2.0, learned=True)", "entmax: alpha=2.0 must be above 1.01 and below 2"),
        ("entmax(alpha=1.01, learned=True)", "entmax: alpha=1.01 must be above 1.01"),
        ("hopfield(steps=0)", "hopfield: steps=0 must be at least 1 and at most 50"),
        ("hopfield(steps=51)", "hopfield: steps=51 must be at least 1 and at most 50"),
        ("nearest_ema(decay=1.0)", "nearest_ema: decay=1.0 must be at least 0 and below 1"),
        ("gumbel(end=0.0)", "gumbel: end=0.0 must be above 0"),
        ("gumbel(rate=-0.1)", "gumbel: rate=-0.1 must be at least 0"),
        ("mnad(margin=-1)", "mnad: margin=-1 must be at least 0"),
    ],
)
def test_a_wrong_name_or_value_is_one_line_that_names_the_field(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_rule(text)
    line = str(caught.value)
    assert line.startswith("memory.addressing: ")
    assert message in line
    assert "\n" not in line


def test_a_huge_number_of_items_is_read_and_fits_no_bank():
    rule = parse_rule(f"top_k(k={10**400})")
    with pytest.raises(ConfigError, match="is more than memory.items=8"):
        rule.check(8, 64, frozen=False)


def test_a_rule_in_python_is_checked_like_its_text():
    with pytest.raises(ConfigError, match="memory.addressing: top_k: k=0 must be at least 1"):
        TopK(k=0)
    with pytest.raises(ConfigError, match="threshold: cut=nan must be finite"):
        Threshold(cut=float("nan"))


HOSTILE = [
    "",
    "(k=8)",
    "top_k(8)",
    "top_k(k=8",
    "top_k k=8",
    "top_k(k=8)(k=8)",
    "top_k(k=8).weigh",
    "top_k(k=8) or softmax()",
    "top_k(k=8); import os",
    "top_k(k=8)\nimport os",
    "top_k(k=8)#",
    "top_k(k=8, k=9)",
    "top_k(**{'k': 8})",
    "top_k(*[8])",
    "top_k(k=4*2)",
    "top_k(k=4 if 1 else 2)",
    "top_k(k=len('four'))",
    "top_k(k=__import__('os').system('touch PROOF'))",
    "top_k(k=open('PROOF', 'w'))",
    "top_k(k=[open('PROOF', 'w') for _ in (1,)])",
    "top_k(k=(lambda: open('PROOF', 'w'))())",
    'top_k(k=f\'{open("PROOF", "w")}\')',
    "top_k(k:=8)",
    "top_k(k=(x:=8))",
    "top_k(k=[1])",
    "top_k(k={1})",
    "top_k(k={1: 2})",
    "top_k(k={[1]: 2})",
    "top_k(k=b'8')",
    "top_k(k=...)",
    "top_k(k=1j)",
    "top_k(k=1+1j)",
    "threshold(cut=1e999)",
    "threshold(cut=-1e999)",
    "threshold(cut=nan)",
    "threshold(cut=inf)",
    "top_k(k=8)\0",
    "top_k(k='\0')",
    "top_k(k='\ud800')",
    "__class__",
    "top_k.__init__",
    "../top_k",
    "a b:c",
    "own_rules:",
    ":top_k",
    "own_rules:one:two",
    "../own_rules:one",
    "own_rules..more:one",
    "top_k(k=" + "(" * 400 + "8" + ")" * 400 + ")",
    "top_k(k=" + "-" * 900 + "8)",
    "top_k(k=" + "-" * 20_000 + "8)",
    "top_k(k=" + "9" * 10_000 + ")",
    "top_k" + " " * 2_000 + "(k=8)",
    "x" * 100_000,
]


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_a_short_config_error_and_runs_nothing(
    text, allowed, tmp_path, monkeypatch, recwarn
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        parse_rule(text, allow_custom_code=allowed)
    line = str(caught.value)
    assert line.startswith("memory.addressing: ")
    assert "\n" not in line
    assert len(line) < 600
    assert not list(tmp_path.iterdir())
    assert not recwarn.list


def test_odd_literals_warn_of_nothing(recwarn):
    with pytest.raises(ConfigError):
        parse_rule(r"top_k(k='\d')")
    with pytest.raises(ConfigError):
        parse_rule("top_k(k=1if 1else 2)")
    assert not recwarn.list
