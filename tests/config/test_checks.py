"""Checks of single values and of types."""

import math
from typing import Literal

import pytest

from daad_jax.config import checks


@pytest.mark.parametrize(
    ("check", "passing", "failing"),
    [
        (checks.at_least(1), [1, 7], [0, -1]),
        (checks.between(0, 1), [0, 0.5, 1], [-0.1, 1.1, math.nan, math.inf]),
        (checks.above(0), [1e-9, 1e300], [0.0, -1.0, math.nan, math.inf]),
        (checks.WEIGHT, [0.0, 3.0], [-1e-9, math.nan, math.inf]),
        (checks.BELOW_ONE, [0.0, 0.999], [1.0, -0.1, math.nan]),
        (checks.ONE_OR_THREE, [1, 3], [0, 2, 4]),
        (checks.one_of("a", "b"), ["a", "b"], ["c", ""]),
        (checks.or_none(checks.at_least(1)), [None, 1], [0]),
        (checks.each(checks.at_least(1), 2), [(1,), (1, 2)], [(), (0,), (1, 0), (1, 1, 1)]),
    ],
)
def test_a_check_passes_exactly_the_allowed_values(check, passing, failing):
    assert [check.problem(value) for value in passing] == [""] * len(passing)
    assert all(check.problem(value) for value in failing)


def test_problems_show_the_value_and_the_allowed_values():
    assert checks.at_least(1).problem(0) == "0 must be at least 1"
    assert checks.between(2, 8).problem(9) == "9 must be from 2 to 8"
    assert checks.above(0).problem(math.nan) == "nan must be finite and above 0"
    assert checks.each(checks.at_least(1), 3).problem(()) == (
        "() must be 1 to 3 numbers, each at least 1"
    )
    assert checks.one_of("kept", "equal").problem("kep") == "no 'kep'; did you mean 'kept'?"
    assert len(checks.at_least(1).problem(-(10**999))) < 300


RATES = (
    Literal["pixel"] | tuple[int, int, int] | tuple[Literal["pixel"] | tuple[int, int, int], ...]
)


@pytest.mark.parametrize(
    ("expected", "fitting", "other"),
    [
        (int, [0, -3, 10**17], [True, 1.0, "1", None, 10**18, 10**5000]),
        (float, [0.5, 1, math.inf], [True, "1.0", None, 10**400]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "x"], [b"x", None, 1]),
        (int | None, [None, 3], ["None", 0.5]),
        (tuple[int, ...], [(), (1,), [1, 2]], [1, (1.5,), ("1",), (None,), range(2)]),
        (
            RATES,
            ["pixel", (1, 2, 3), [1, 2, 3], ["pixel", [1, 2, 3]], ("pixel",)],
            ["pixels", 8, (1, 2), (1, 2, 3.0), (1, 2, 3, 4), None, ("x",), [[[1, 2, 3]]]],
        ),
    ],
)
def test_types_are_told_apart(expected, fitting, other):
    assert all(checks.fits(value, expected) for value in fitting)
    assert not any(checks.fits(value, expected) for value in other)
