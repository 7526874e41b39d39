"""A user's own rule, named ``module:name``: imported on request only, never by reading a config."""

import functools
import importlib
import re
from typing import Any

import jax
import jax.numpy as jnp

from daad_jax.addressing.interface import (
    DIAGNOSTICS,
    Answer,
    Arrays,
    BatchReads,
    Request,
    Rule,
    as_rule,
)
from daad_jax.addressing.similarity import cosine
from daad_jax.errors import ConfigError, shown

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_LOADED: dict[str, Rule] = {}


def is_custom(name: str) -> bool:
    """Whether a value of ``memory.addressing`` names code outside the package."""
    return ":" in name


def check_name(name: str) -> None:
    """Checks the form ``module:name``; imports nothing.

    Raises:
        ConfigError: if it is another.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"memory.addressing: {shown(name)} is not module:function, such as my_rules:sharpest"
        )


def permit(name: str, *, allowed: bool) -> None:
    """Imports a user's own rule where that is allowed; a rule of the package needs nothing.

    Args:
        name: of the rule, as ``memory.addressing`` has it.
        allowed: whether the user asked for it: the name may come from a file that is only data.

    Raises:
        ConfigError: if it is not allowed, or there is no such rule to import.
    """
    if not is_custom(name):
        return
    check_name(name)
    if not allowed:
        raise ConfigError(_refusal(name))
    module_name, attribute = name.split(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # A module is Python: importing it can fail in any way.
        raise ConfigError(
            f"memory.addressing: {name}: importing {module_name} failed ({error!r}); mend it, or "
            "put its folder into PYTHONPATH"
        ) from error
    found = getattr(module, attribute, None)
    if not (isinstance(found, Rule) or callable(found)):
        raise ConfigError(
            f"memory.addressing: {name}: {module_name} has no function or Rule {attribute}"
        )
    _LOADED[name] = as_rule(found)


def loaded(name: str) -> Rule:
    """The rule that `permit` imported.

    Raises:
        ConfigError: if it did not.
    """
    if name not in _LOADED:
        raise ConfigError(_refusal(name))
    return _LOADED[name]


def check_shapes(name: str, rule: Rule, count: int, size: int, *, frozen: bool) -> None:
    """Follows the shapes of a user's own rule through one read; computes nothing.

    Args:
        name: of the rule.
        rule: what `loaded` gave.
        count: N, the items of a bank.
        size: D, the values of a block.
        frozen: whether the items are to stay as they are.

    Raises:
        ConfigError: if the read, its losses or its update fail or have other shapes than
            `daad_jax.addressing.Rule` says, or if a frozen rule moves the items.
    """
    query = jax.ShapeDtypeStruct((size,), jnp.float32)
    items = jax.ShapeDtypeStruct((count, size), jnp.float32)
    about = f"memory.addressing: {name}: with {count} items of {size} values"
    try:
        traced = jax.eval_shape(functools.partial(_one_read, rule), query, items)
        answer, losses, state, updated = traced
        shapes = answer.block.shape, answer.weights.shape
        losses = {loss: value.shape for loss, value in losses.items()}
    except Exception as error:  # A user's function can fail in any way.
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{about} a read fails: {type(error).__name__}: {reason}") from error
    if shapes != ((size,), (count,)):
        raise ConfigError(
            f"{about} a read gives a block {shapes[0]} and weights {shapes[1]} instead of "
            f"{(size,)} and {(count,)}"
        )
    for loss, shape in losses.items():
        if shape != () or loss in DIAGNOSTICS:
            wrong = "is also what a diagnostic is called" if shape == () else f"has shape {shape}"
            raise ConfigError(f"{about} the loss {shown(loss)} {wrong}; give it another")
    if updated != state:
        raise ConfigError(f"{about} update changes the names, shapes or dtypes of the state")
    if frozen and "memory_items" in state:
        raise ConfigError(f"memory.frozen: {name} moves the items itself; choose another rule")


def _one_read(
    rule: Rule, query: jax.Array, items: jax.Array
) -> tuple[Answer, dict[str, jax.Array], Arrays, Arrays]:
    """A read with noise, losses, and the state before and after an update."""
    key = jax.random.key(0)
    params: Any = {} if rule.init_params is None else rule.init_params(key, items)
    state = {} if rule.init_state is None else dict(rule.init_state(items))
    bank = state.get("memory_items", items)
    noise = key if rule.needs_key else None
    answer = Answer(*rule.read(Request(query, bank, cosine, params, state, noise)))
    rule.read(Request(query, bank, cosine, params, state, None))  # as at evaluation
    reads = BatchReads(query[None], bank, answer.weights[None])
    losses = {} if rule.losses is None else rule.losses(reads)
    updated = state if rule.update is None else dict(rule.update(state, reads))
    return answer, losses, state, updated


def _refusal(name: str) -> str:
    return (
        f"memory.addressing: {shown(name)} is code outside this package, which is not run unasked; "
        "if you trust it, give --allow_custom_code, or allow_custom_code=True to daad_jax.load"
    )
