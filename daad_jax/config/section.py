"""How the config dataclasses declare and set their fields."""

import dataclasses
from typing import Any

from daad_jax.config.checks import Check, fits
from daad_jax.errors import ConfigError, suggestion


def item(default: Any, sentence: str, check: Check | None = None) -> Any:
    """Declares a config field: the only place for its default, its meaning and its check.

    Args:
        default: the field's default.
        sentence: what the field means, for the reference page.
        check: a condition on its value beyond its type.
    """
    return dataclasses.field(default=default, metadata={"sentence": sentence, "check": check})


class Section:
    """Base of the config dataclasses: only declared fields can be set, and get their own type."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets a field. Lists become tuples and whole numbers become floats where declared so.

        Raises:
            ConfigError: if there is no such field.
        """
        declared: dict[str, dataclasses.Field[Any]] = vars(type(self))["__dataclass_fields__"]
        if name not in declared:
            section = type(self).__name__.removesuffix("Config").lower()
            path = f"{section}.{name}".removeprefix(".")
            raise ConfigError(f"{path}: no such config field; {suggestion(name, declared)}")
        expected = declared[name].type
        object.__setattr__(
            self, name, _converted(value, expected) if fits(value, expected) else value
        )


def _converted(value: Any, expected: Any) -> Any:
    if expected is float:
        return float(value)
    return _as_tuples(value)


def _as_tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_as_tuples(entry) for entry in value)
    return value
