"""A user's own rule, named ``module:name``: imported on request only, never by reading a config."""

import importlib
import re

from daad_jax.addressing.interface import Rule, as_rule
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


def _refusal(name: str) -> str:
    return (
        f"memory.addressing: {shown(name)} is code outside this package, which is not run unasked; "
        "if you trust it, give --allow_custom_code, or allow_custom_code=True to daad_jax.load"
    )
