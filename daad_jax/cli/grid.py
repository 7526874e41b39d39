"""``grid``: trains and evaluates many configs in one process, with a line of results for each."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from daad_jax import addressing, api
from daad_jax import config as config_lib
from daad_jax.cli import flags as own_flags
from daad_jax.cli.runs import Grid, GridRun, config_key, run_all, title
from daad_jax.cli.train import with_category
from daad_jax.data import list_categories
from daad_jax.errors import ConfigError
from daad_jax.runtime.files import user_path

_SUFFIX = ".jsonl"
_AXES = {"setting": "--settings", "seed": "--seeds", "data.category": "--categories"}


def run(argv: Sequence[str]) -> None:
    """Trains and evaluates every run that has no result yet in the results file.

    `argv` is "grid" and its flags. Raises ConfigError before the first run if any run cannot work,
    and GridError after the last run if some failed.
    """
    run_all(parse_grid_flags(argv))


def parse_grid_flags(argv: Sequence[str]) -> Grid:
    """Parses the flags of ``grid`` and checks every run.

    `argv` begins with the verb. Raises ConfigError if a flag, a config or a variant cannot be used
    or two runs are equal, and DataError if the categories cannot be listed.
    """
    values = _define_flags()
    given = own_flags.parse_config_flags(values, argv)
    if not values.results or Path(values.results).suffix != _SUFFIX:
        raise ConfigError(f"--results: give a file whose name ends in {_SUFFIX}")
    results = user_path(values.results)
    seeds = own_flags.parse_seeds(values.seeds)
    runs = []
    for setting in values.settings or [given.setting]:
        base = given._replace(setting=setting)
        for text in values.variant or [""]:
            one = _vary(base, text, allow_custom_code=values.allow_custom_code)
            runs += _spread(one, values.categories, seeds)
    _check_different(runs)
    workdir = user_path(values.workdir or results.with_suffix(""))
    return Grid(runs, results, workdir)


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("results", None, "File that gets a line per run.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Folder of the runs' folders.", flag_values=values)
    flags.DEFINE_list("settings", None, "Settings of the config.", flag_values=values)
    flags.DEFINE_list("categories", None, "Instead of data.category.", flag_values=values)
    flags.DEFINE_list("seeds", None, "Instead of seed.", flag_values=values)
    flags.DEFINE_multi_string("variant", None, "FIELD=VALUE ... of one.", flag_values=values)
    own_flags.define_custom_code(values)
    return values


def _vary(base: own_flags.ConfigFlags, variant: str, *, allow_custom_code: bool) -> GridRun:
    """Builds and checks the config with a variant's overrides."""
    config = own_flags.load_config(base)
    try:
        overrides = own_flags.parse_variant(_split(variant))
        for path in _AXES.keys() & overrides.keys():
            raise ConfigError(f"{path}: a variant cannot set it; use {_AXES[path]}")
        own_flags.override(config, overrides)
        rule = addressing.parse_rule(config.memory.addressing, allow_custom_code=allow_custom_code)
        api.check(config, rule)
    except ConfigError as error:
        if not variant:
            raise
        raise ConfigError(f"--variant={variant!r}: {error}") from error
    return GridRun(config, variant, rule)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{error}; close the quotes") from error


def _spread(run: GridRun, categories: Sequence[str] | None, seeds: Sequence[int]) -> list[GridRun]:
    """One run for each category and seed, category by category."""
    runs = []
    for wanted in categories or [run.config.data.category]:
        config = with_category(run.config, wanted)
        for category in list_categories(config.data):
            for seed in seeds or [config.seed]:
                own = with_category(config, category)
                own.seed = seed
                config_lib.validate(own)
                runs.append(run._replace(config=own))
    return runs


def _check_different(runs: Sequence[GridRun]) -> None:
    seen: dict[str, GridRun] = {}
    for run in runs:
        first = seen.setdefault(config_key(run.config), run)
        if first is not run:
            raise ConfigError(
                f"--variant: {title(first)} and {title(run)} are the same run; leave one out"
            )
