"""How the config dataclasses declare and set their fields."""

import dataclasses
from typing import Any

from daad_jax.config.checks import Check, fits
from daad_jax.errors import ConfigError, suggestion


def option(default: Any, sentence: str, check: Check | None = None) -> Any:
    """Declares a config field with its default and its meaning, for the reference page.

    The check is a condition on the value beyond its type.
    """
    return dataclasses.field(default=default, metadata={"sentence": sentence, "check": check})


class Section:
    """Base of the config dataclasses: only declared fields can be set."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets a field. Lists become tuples, and ints become floats if the field is a float.

        The value is not checked. Raises ConfigError if there is no such field.
        """
        declared: dict[str, dataclasses.Field[Any]] = vars(type(self))["__dataclass_fields__"]
        if name not in declared:
            section = type(self).__name__.removesuffix("Config").lower()
            path = f"{section}.{name}".removeprefix(".")
            raise ConfigError(f"{path}: no such config field; {suggestion(name, declared)}")
        expected = declared[name].type
        if fits(value, expected):
            value = float(value) if expected is float else _as_tuples(value)
        object.__setattr__(self, name, value)


def _as_tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_as_tuples(entry) for entry in value)
    return value
