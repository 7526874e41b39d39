"""Command-line flags: the config, overrides of its fields, and a verb's own flags.

Only this file imports ml_collections.
"""

import dataclasses
import os
import re
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.data import ALL
from daad_jax.data.sources.layout import is_category
from daad_jax.errors import ConfigError, UserError, suggestion
from daad_jax.runtime.files import user_path

_DEFAULT_PRESET, _FOLDER_PRESET = "default", "folder"


class ConfigFlags(NamedTuple):
    """The config that a command line asks for.

    `source` is the path of a config file or the name of a preset. `setting` is the text after the
    colon, or None for the setting that the file chooses. `overrides` holds the values of
    ``--config.FIELD=VALUE`` by the field's dotted path. `folder` is the folder of images that
    stands for the config file, or None.
    """

    source: str
    setting: str | None
    overrides: dict[str, Any]
    folder: str | None = None

    @property
    def name(self) -> str:
        """The preset's name, or the file's name without ``.py``."""
        return Path(self.source).stem


def parse_config_flags(
    values: flags.FlagValues, argv: Sequence[str], *, positional: bool = False
) -> ConfigFlags:
    """Parses ``--config=FILE[:SETTING]``, ``--config.FIELD=VALUE`` and a verb's own flags.

    ``--config`` also takes the name of a preset. With `positional`, one folder of images may be
    given; then the preset is ``folder`` by default, else ``default``. ``--flagfile=FILE`` reads
    flags from a file. `values` defines the verb's own flags and receives their values, so it can be
    used only once. `argv` begins with the verb.

    Raises ConfigError for an unknown flag or field, a value of the wrong type, or a stray argument.
    """
    named = flags.FlagValues()
    help_text = (
        "Config file or preset, FILE[:SETTING]; --config.FIELD=VALUE sets a field. "
        f"By default {_DEFAULT_PRESET!r}, or {_FOLDER_PRESET!r} if a folder of images is given."
    )
    flags.DEFINE_string("config", None, help_text, flag_values=named)
    _show_help(argv, named, values)
    rest = _call(named, argv, known_only=True)
    overrides, folder = parse_overrides(values, rest, positional=positional)
    chosen = named.config
    if chosen is None:
        chosen = _DEFAULT_PRESET if folder is None else _FOLDER_PRESET
    source, colon, setting = chosen.rpartition(":")
    if not colon or user_path(chosen).is_file():
        return ConfigFlags(chosen, None, overrides, folder)
    return ConfigFlags(source, setting, overrides, folder)


def parse_variant(words: Sequence[str]) -> dict[str, Any]:
    """Parses ``FIELD=VALUE`` words as ``--config.FIELD=VALUE`` is parsed.

    Raises ConfigError for a word without "=", an unknown field or a value of the wrong type.
    """
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{word!r} is not FIELD=VALUE; quote values that hold spaces")
    return parse_overrides(flags.FlagValues(), ["", *(f"--config.{word}" for word in words)])[0]


def parse_flags(
    values: flags.FlagValues, argv: Sequence[str], *, positional: bool = False
) -> list[str]:
    """Parses a verb's own flags. `values` defines them and receives their values.

    `argv` begins with the verb. Returns the arguments without dashes, which only `positional`
    allows. Raises ConfigError for an unknown flag, a value of the wrong type, or a stray argument.
    """
    _show_help(argv, values)
    rest = _call(values, argv)
    if not positional:
        _at_most(0, rest[1:])
    return rest[1:]


def parse_seeds(texts: Sequence[str] | None) -> list[int]:
    """The numbers of ``--seeds``, none by default. Raises ConfigError if one is not an integer."""
    for text in texts or []:
        if not re.fullmatch(r"-?[0-9]+", text):
            raise ConfigError(f"--seeds: {text!r} is not a whole number")
    return [int(text) for text in texts or []]


def define_custom_code(values: flags.FlagValues) -> None:
    """Defines ``--allow_custom_code``, without which a custom addressing rule is not imported."""
    flags.DEFINE_bool(
        "allow_custom_code", False, "Import a rule that the config names.", flag_values=values
    )


def define_distributed(values: flags.FlagValues) -> None:
    """Defines ``--distributed``, which joins several processes."""
    flags.DEFINE_string("distributed", None, "HOST:PORT,COUNT,INDEX or auto.", flag_values=values)


def load_config(given: ConfigFlags) -> Config:
    """Builds the config that a command line asks for. It is not validated yet.

    A folder of images becomes `data.root`. It is one category, or all of those in it are meant.

    Raises ConfigError if there is no such file, preset or setting, or if the file raises an
    exception or returns something other than a `Config`, and DataError if the folder of images does
    not exist.
    """
    get_config = _get_config(given.source)
    try:
        config = get_config() if given.setting is None else get_config(given.setting)
    except UserError:
        raise
    except Exception as error:  # a config file is Python code
        raise _unusable(given.source, error) from error
    if not isinstance(config, Config):
        raise ConfigError(f"--config: get_config() of {given.source} must return a daad_jax Config")
    override(config, given.overrides)
    if given.folder is not None:
        _set_folder(config, given.folder, given)
    return config


def override(config: Config, overrides: Mapping[str, Any]) -> None:
    """Sets fields of a config in place.

    An override of `train.epochs` removes the config's own `train.steps`. Raises ConfigError for a
    value of the wrong type, or if both lengths are overridden.
    """
    if {"train.epochs", "train.steps"} <= overrides.keys():
        raise ConfigError("train.epochs: give it or train.steps, not both")
    config_lib.set_fields(config, overrides)
    config.data.root = os.path.expanduser(config.data.root)
    if config.data.source == "folder":
        config.data.category = "/".join(Path(config.data.category).parts)  # "dog/" is "dog"


def _set_folder(config: Config, folder: str, given: ConfigFlags) -> None:
    if "data.root" in given.overrides:
        raise ConfigError(f"data.root: the folder is given already, as {folder!r}; leave one out")
    if config.data.source != "folder":
        raise ConfigError(
            f"--config: {given.source} does not take a folder such as {folder!r}, because its "
            f"data.source is {config.data.source!r}; leave one out"
        )
    config.data.root = os.path.expanduser(folder)
    if "data.category" not in given.overrides:
        config.data.category = "" if is_category(config.data) else ALL


def _get_config(source: str) -> Callable[..., Any]:
    """The function `get_config` of a preset or a config file."""
    if source in config_lib.PRESETS:
        return config_lib.PRESETS[source]
    path = user_path(source)
    if not path.is_file():
        hint = suggestion(path.stem, config_lib.PRESETS)
        raise ConfigError(f"--config: no file or preset {source}; {hint}")
    if path.suffix != ".py":
        raise ConfigError(f"--config: {path} is not a Python file; give one like configs/folder.py")
    try:
        found: Callable[..., Any] = runpy.run_path(os.fspath(path))["get_config"]
    except Exception as error:  # a config file is Python code
        raise _unusable(source, error) from error
    return found


def _unusable(source: str, error: Exception) -> ConfigError:
    return ConfigError(f"--config: {source} cannot be used ({error!r}); correct the file")


def parse_overrides(
    values: flags.FlagValues, argv: Sequence[str], *, positional: bool = False
) -> tuple[dict[str, Any], str | None]:
    """Parses ``--config.FIELD=VALUE``, the flags that `values` defines, and a folder.

    `argv` begins with the verb. Returns the values of the fields by their dotted paths, and the
    argument without dashes, which only `positional` allows, or None. Raises what
    `parse_config_flags` raises.
    """
    _show_help(argv, values)
    argv, fields = _expand(argv), config_lib.field_types()
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match and match[1] not in fields:
            raise ConfigError(
                f"--config.{match[1]}: no such config field; {suggestion(match[1], fields)}"
            )
    try:
        config_flags.DEFINE_config_dataclass(
            "config", _placeholders(fields), flag_values=values, sys_argv=list(argv)
        )
    except (flags.Error, ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    words = parse_flags(values, argv, positional=True)
    _at_most(1 if positional else 0, words)
    return config_flags.get_override_values(values["config"]), words[0] if words else None


def _at_most(most: int, words: Sequence[str]) -> None:
    if len(words) > most:
        raise ConfigError(f"{words[most]}: not understood; flags begin with -- and use =")


def _placeholders(fields: Mapping[str, Any]) -> Any:
    """A config without values, from which ml_collections reads the types of the fields."""
    sections: dict[str, list[tuple[str, Any, Any]]] = {}
    for path, declared in fields.items():
        section, _, name = path.rpartition(".")
        entry = (name, _flag_type(declared), dataclasses.field(default=None))
        sections.setdefault(section, []).append(entry)
    top = sections.pop("")
    for section, entries in sections.items():
        made = dataclasses.make_dataclass(section, entries)
        top.append((section, made, dataclasses.field(default_factory=made)))
    return dataclasses.make_dataclass("Config", top)()


def _flag_type(declared: Any) -> type:
    """The type that parses a field's text. `object` reads any Python literal."""
    if declared in (bool, int, float, str):
        return declared
    return tuple if declared == tuple[int, ...] else object


def _show_help(argv: Sequence[str], *groups: flags.FlagValues) -> None:
    """Prints the flags and ends the program if ``--help`` is among the arguments."""
    if "--help" in argv or "-h" in argv:
        for group in groups:
            print(group.get_help(include_special_flags=False).partition(":")[2].strip("\n"))
        sys.exit()


def _expand(argv: Sequence[str]) -> list[str]:
    """Puts the lines of ``--flagfile=FILE`` in its place, so that every parser sees all flags."""
    try:
        return [argv[0], *flags.FlagValues().read_flags_from_files(list(argv[1:]))]
    except (flags.Error, ValueError) as error:
        raise ConfigError(f"--flagfile: {' '.join(str(error).split())}; correct it") from error


def _call(values: flags.FlagValues, argv: Sequence[str], *, known_only: bool = False) -> list[str]:
    """Parses flags and turns absl's errors into ConfigErrors."""
    values.set_gnu_getopt()  # flags may follow a folder
    try:
        return list(values(list(argv), known_only=known_only))
    except flags.UnrecognizedFlagError as error:
        known = [f"--{name}" for name in values if "." not in name]
        name = f"--{error.flagname}"
        raise ConfigError(f"{name}: no such flag; {suggestion(name, known)}") from error
    except (flags.Error, ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
