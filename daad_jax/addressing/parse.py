"""Reads rules from text such as ``top_k(k=8)`` or ``my_rules:sharpest(power=2)``.

Arguments are literals; text is never evaluated. Code outside the package is imported only where
the caller allows it, because the text can come from somebody else's file.
"""

import ast
import dataclasses
import importlib
import inspect
import math
import re
import warnings
from typing import Any

from daad_jax.addressing import rules
from daad_jax.addressing.rule import Rule, Weighing, call_text
from daad_jax.errors import ConfigError, shown, suggestion

_FIELD = "memory.addressing"
_MOST_CHARACTERS = 1000  # Python's parser can fail on nesting that is deeper than that.
_WORD = r"[A-Za-z_]\w*"
_FORM = re.compile(rf"(?:({_WORD}(?:\.{_WORD})*):)?({_WORD})\s*(\(.*\))?", re.DOTALL)


def parse_rule(text: str, *, allow_custom_code: bool = False) -> Rule:
    """Returns the rule that a text describes.

    Args:
        text: ``name`` or ``name(argument=literal, ...)``. The name is one of
            `daad_jax.addressing.RULES`, or ``module:attribute`` for a rule outside the package: a
            subclass of `Rule`, a `Rule`, or a function from similarities ``(N,)`` and the
            arguments to weights ``(N,)``.
        allow_custom_code: whether ``module`` may be imported, which runs its code.

    Raises:
        ConfigError: if the text has another form, there is no such rule or argument, an argument
            has a wrong value, or the rule is custom code that is not allowed or not importable.
    """
    module, name, arguments = _split(text)
    if module:
        if not allow_custom_code:
            raise ConfigError(
                f"{_FIELD}: {shown(text)} is code outside this package, which is not run without "
                "permission; if you trust it, give --allow_custom_code, or allow_custom_code=True "
                "in Python"
            )
        return _make(_import(module, name), f"{module}:{name}", arguments)
    if name not in rules.RULES:
        raise ConfigError(f"{_FIELD}: no rule {shown(name)}; {suggestion(name, rules.RULES)}")
    return _make(rules.RULES[name], name, arguments)


def _split(text: str) -> tuple[str | None, str, dict[str, Any]]:
    """Returns the module or None, the name and the arguments of a text; imports nothing."""
    match = _FORM.fullmatch(text.strip()) if len(text) <= _MOST_CHARACTERS else None
    if match is None:
        raise ConfigError(
            f"{_FIELD}: {shown(text)} is not a rule; write name(argument=value, ...) or "
            "module:name(argument=value, ...), such as top_k(k=8)"
        )
    module, name, call = match.groups()
    return module, name, _arguments(text, call) if call else {}


def _arguments(text: str, call: str) -> dict[str, Any]:
    """Returns the keyword arguments of ``(a=1, b=2)``."""
    try:
        with warnings.catch_warnings():  # The parser warns of odd literals.
            warnings.simplefilter("ignore")
            node = ast.parse(f"rule{call}", mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
            raise ValueError("arguments have names")
        names = [keyword.arg for keyword in node.keywords]
        if None in names or len(set(names)) < len(names):
            raise ValueError("each argument has one value")
        return {str(one.arg): _plain(ast.literal_eval(one.value)) for one in node.keywords}
    except (SyntaxError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{_FIELD}: the arguments of {shown(text)} cannot be read; write each once as "
            "name=value, where the value is a finite number, a quoted text, True, False, None or "
            "a tuple of these"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(one) for one in value)
    if not isinstance(value, str | bool | int | float | None):
        raise ValueError(f"{value!r} is of another type")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return value


def _import(module_name: str, name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # A module is Python code: importing it can fail in any way.
        raise ConfigError(
            f"{_FIELD}: {module_name}:{name}: importing {module_name} failed ({error!r}); correct "
            "the module, or add its folder to PYTHONPATH"
        ) from error
    found = getattr(module, name, None)
    is_rule = issubclass(found, Rule) if isinstance(found, type) else isinstance(found, Rule)
    if not is_rule and (isinstance(found, type) or not callable(found)):
        raise ConfigError(
            f"{_FIELD}: {module_name}:{name}: {module_name} has no function, Rule or subclass of "
            f"Rule {name}; correct the name"
        )
    return found


def _make(found: Any, name: str, arguments: dict[str, Any]) -> Rule:
    """Calls a rule's class, wraps a function, or returns a rule as it is."""
    if isinstance(found, type):
        known = [field.name for field in dataclasses.fields(found) if field.init]
        return _call(found, name, arguments, known)
    if isinstance(found, Rule):
        if arguments:
            raise ConfigError(f"{_FIELD}: {name} is a rule already; write it without arguments")
        return found
    try:
        inspect.signature(found).bind(None, **arguments)
    except ValueError:  # Some functions of C extensions have no signature.
        pass
    except TypeError as error:
        raise ConfigError(f"{_FIELD}: {call_text(name, arguments)}: {error}; correct it") from error
    return Weighing(found, tuple(sorted(arguments.items())), name)


def _call(found: type[Rule], name: str, arguments: dict[str, Any], known: list[str]) -> Rule:
    for argument in arguments:
        if argument not in known:
            advice = suggestion(argument, known) if known else "it has none"
            raise ConfigError(f"{_FIELD}: {name} has no argument {shown(argument)}; {advice}")
    try:
        return found(**arguments)
    except ConfigError:
        raise
    except Exception as error:  # A custom class can fail in any way.
        raise ConfigError(
            f"{_FIELD}: {call_text(name, arguments)}: {type(error).__name__}: {error}; correct it"
        ) from error
