"""Reading, setting and comparing config fields by dotted path, and configs as JSON values."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from daad_jax.config.checks import fits, type_name
from daad_jax.config.schema import Config
from daad_jax.errors import ConfigError, shown, suggestion


def fields() -> dict[str, dataclasses.Field[Any]]:
    """Returns the declaration of every config field by its dotted path."""
    declared = {}
    for entry in dataclasses.fields(Config):
        if isinstance(entry.type, type) and dataclasses.is_dataclass(entry.type):
            section = dataclasses.fields(entry.type)
            declared.update({f"{entry.name}.{inner.name}": inner for inner in section})
        else:
            declared[entry.name] = entry
    return declared


def field_types() -> dict[str, Any]:
    """Returns the type of every config field by its dotted path."""
    return {path: declared.type for path, declared in fields().items()}


def get_field(config: Config, path: str) -> Any:
    """Returns the value of the field that a dotted path names."""
    return functools.reduce(getattr, path.split("."), config)


def set_field(config: Config, path: str, value: Any) -> None:
    """Sets the field that a dotted path names. Lists become tuples.

    Raises ConfigError if there is no such field, or the value has another type. Only `validate`
    checks the value itself.
    """
    types = field_types()
    if path not in types:
        raise ConfigError(f"{path}: no such config field; {suggestion(path, types)}")
    check_type(path, value, types[path])
    section, _, name = path.rpartition(".")
    holder = getattr(config, section) if section else config
    setattr(holder, name, value)


def set_fields(config: Config, values: Mapping[str, Any]) -> None:
    """Sets fields by their dotted paths. `train.epochs` removes the config's own `train.steps`.

    Raises what `set_field` raises.
    """
    for path, value in values.items():
        set_field(config, path, value)
    if values.get("train.epochs") is not None and "train.steps" not in values:
        config.train.steps = None


def check_type(path: str, value: Any, expected: Any) -> None:
    """Raises ConfigError, which names the field, if a value does not have the field's type."""
    if not fits(value, expected):
        raise ConfigError(f"{path}: {shown(value)} is not {type_name(expected)}")


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested dicts of JSON values; tuples become lists."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return result


def from_dict(values: Mapping[str, Any]) -> Config:
    """Rebuilds a config from the result of `to_dict`; missing fields keep their defaults.

    Raises ConfigError, which names the field, if one is unknown or its value has another type.
    """
    return from_flat(flatten(values))


def from_flat(values: Mapping[str, Any]) -> Config:
    """Builds a config from values by dotted path; missing fields keep their defaults.

    Raises ConfigError, which names the field, if one is unknown or its value has another type.
    """
    config = Config()
    for path, value in values.items():
        set_field(config, path, value)
    return config


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as one dict from dotted path to value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
