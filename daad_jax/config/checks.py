"""Checks of the type and the value of one field."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

from daad_jax.errors import shown, suggestion

_MAX_DIGITS = 18  # a whole number of this length always fits into 64 bits


@dataclasses.dataclass(frozen=True)
class Check:
    """A condition on the value of one field.

    `passes` tests a value of the field's type. `allowed` describes the values that pass, in words
    that follow "must be". `choices` are the known names, if the condition is a choice of names.
    """

    passes: Callable[[Any], bool]
    allowed: str
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str:
        """The text that follows the field's name in an error message; "" if the value passes."""
        if self.passes(value):
            return ""
        if self.choices:
            return f"no {shown(value)}; {suggestion(value, self.choices)}"
        return f"{shown(value)} must be {self.allowed}"


def at_least(low: int) -> Check:
    """Numbers of at least `low`."""
    return Check(lambda value: value >= low, f"at least {low}")


def between(low: float, high: float) -> Check:
    """Numbers from `low` to `high`, both included."""
    return Check(lambda value: low <= value <= high, f"from {low} to {high}")


def above(low: float) -> Check:
    """Finite numbers above `low`."""
    return Check(lambda value: low < value < math.inf, f"finite and above {low}")


WEIGHT = Check(lambda value: 0 <= value < math.inf, "finite and at least 0")
BELOW_ONE = Check(lambda value: 0 <= value < 1, "from 0 to below 1")


def one_of(*names: str) -> Check:
    """One of the names."""
    allowed = ", ".join(f'"{name}"' for name in names[:-1])
    return Check(lambda value: value in names, f'{allowed} or "{names[-1]}"', names)


ONE_OR_THREE = Check(lambda value: value in (1, 3), "1 or 3")


RANGE = Check(
    lambda value: value == "auto" or -math.inf < value[0] < value[1] < math.inf,
    '"auto", or black below white',
)


def or_none(check: Check) -> Check:
    """The same condition for a field that may also be None."""
    return dataclasses.replace(check, passes=lambda value: value is None or check.passes(value))


def each(check: Check, most: int) -> Check:
    """A condition on each of one to `most` values."""

    def passes(values: Sequence[Any]) -> bool:
        return 1 <= len(values) <= most and all(map(check.passes, values))

    return Check(passes, f"1 to {most} numbers, each {check.allowed}")


def side(check: Check) -> Check:
    """The same condition for one number, or for each of two: height and width."""

    def passes(value: Any) -> bool:
        return all(map(check.passes, value if isinstance(value, tuple) else (value,)))

    return dataclasses.replace(check, passes=passes)


_MOST_SCALES = 8
SCALES = Check(
    lambda values: len(values) <= _MOST_SCALES and all(map(WEIGHT.passes, values)),
    f"at most {_MOST_SCALES} numbers, each {WEIGHT.allowed}",
)


def fits(value: Any, expected: Any) -> bool:
    """Whether a value has a field's type.

    The type is bool, int, float, str, None, a literal, or a tuple or union of these. An int fits
    float, a list fits a tuple, and True is not a number. An int has at most 18 digits.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        inner = arguments if arguments[-1] is not ... else arguments[:1] * len(value)
        return len(value) == len(inner) and all(map(fits, value, inner))
    if expected is float:
        return isinstance(value, float) or fits(value, int)
    if expected is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and abs(value) < 10**_MAX_DIGITS
    return isinstance(value, expected)


def type_name(expected: Any) -> str:
    """A field's type in words that follow "is not"."""
    names = {
        int: f"a whole number of at most {_MAX_DIGITS} digits",
        float: "a number",
        str: "a string",
        bool: "true or false",
        int | tuple[int, int]: "a whole number or two, (height, width)",
        int | None: "a whole number or None",
        float | None: "a number or None",
        tuple[int, ...]: "a list of whole numbers",
        tuple[float, ...]: "a list of numbers",
        Literal["auto"] | tuple[float, float]: "'auto' or two numbers (black, white)",
    }
    rates = "'pixel', three numbers (r_h, r_w, r_c), or one of these for each scale"
    return names.get(expected, rates)
