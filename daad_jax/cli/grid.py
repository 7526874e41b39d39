"""``grid``: trains and evaluates many configs in one process, with a line of results for each."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from daad_jax import addressing, api
from daad_jax import config as config_lib
from daad_jax.addressing import Rule
from daad_jax.cli import flags as own_flags
from daad_jax.cli.train import category_name, folder_name, train_and_evaluate, with_category
from daad_jax.config import Config
from daad_jax.data import Dataset, list_categories, load_dataset
from daad_jax.data.tiles import cut
from daad_jax.errors import ConfigError, GridError, UserError, printable
from daad_jax.reports import grid_table
from daad_jax.runtime.files import user_path
from daad_jax.train.loop import total_steps
from daad_jax.workdir.checkpoint import Checkpoints
from daad_jax.workdir.run import CONFIG_FILE

_SUFFIX = ".jsonl"
_AXES = {"setting": "--settings", "seed": "--seeds", "data.category": "--categories"}


class GridRun(NamedTuple):
    """A run: its checked config for one category, its ``--variant`` as written, and its rule."""

    config: Config
    variant: str
    rule: Rule


class Grid(NamedTuple):
    """All runs of a grid in order, the results file, and the folder that holds the workdirs."""

    runs: list[GridRun]
    results: Path
    workdir: Path


def run(argv: Sequence[str]) -> None:
    """Trains and evaluates every run that has no result yet in the results file.

    `argv` is "grid" and its flags. Raises ConfigError before the first run if any run cannot work,
    and GridError after the last run if some failed.
    """
    grid = parse_grid_flags(argv)
    done = _finished(grid.results)
    commit, failed, load = _commit(), 0, _loader(grid.workdir / "cache")
    for index, one in enumerate(grid.runs):
        title = f"[{index + 1}/{len(grid.runs)}] {_title(one)}"
        if _key(one.config) in done:
            print(f"{title}: already in the results file", flush=True)
            continue
        print(title, flush=True)
        line: dict[str, Any] = {
            "variant": one.variant,
            "setting": one.config.setting,
            "seed": one.config.seed,
            "category": category_name(one.config),
            "config": config_lib.to_dict(one.config),
            "commit": commit,
            "machine": _machine(),
        }
        try:
            line |= _measure(one, grid.workdir / run_name(one.config), load)
            scores = line["evaluation"]["scores"].items()
            found = [f"{name} {one['image_auroc']:.4f}" for name, one in scores if one]
            print(f"  image AUROC {', '.join(found) or 'none'}", flush=True)
        except UserError as error:
            failed += 1
            line["error"] = str(error)
            reason = " ".join(str(error).split())
            print(f"error: {title}: {reason}", file=sys.stderr, flush=True)
        grid_table.append(grid.results, line)
    if failed:
        raise GridError(
            f"{grid.results}: {failed} of {len(grid.runs)} runs failed, see `error` in their "
            "lines; re-run the same command to try them again"
        )


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
    seeds = values.seeds or []
    for text in seeds:
        if not text.lstrip("-").isdecimal():
            raise ConfigError(f"--seeds: {text!r} is not a whole number")
    runs = []
    for setting in values.settings or [given.setting]:
        base = given._replace(setting=setting)
        for text in values.variant or [""]:
            one = _vary(base, text, allow_custom_code=values.allow_custom_code)
            runs += _spread(one, values.categories, [int(seed) for seed in seeds])
    _check_different(runs)
    workdir = user_path(values.workdir or results.with_suffix(""))
    return Grid(runs, results, workdir)


def run_name(config: Config) -> str:
    """The name of a run's folder: its category, setting and seed, and a hash of all fields."""
    digest = hashlib.sha256(_key(config).encode()).hexdigest()
    category = folder_name(category_name(config))
    return f"{category}-{config.setting}-{config.seed}-{digest[:12]}"


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
        first = seen.setdefault(_key(run.config), run)
        if first is not run:
            raise ConfigError(
                f"--variant: {_title(first)} and {_title(run)} are the same run; leave one out"
            )


def _finished(results: Path) -> set[str]:
    """The keys of the configs whose last line holds an evaluation."""
    lines = grid_table.read_lines(results) if results.exists() else []
    latest = grid_table.latest(lines)
    return {grid_table.config_key(line["config"]) for line in latest if "evaluation" in line}


def _key(config: Config) -> str:
    return grid_table.config_key(config_lib.to_dict(config))


def _title(run: GridRun) -> str:
    config = run.config
    category = printable(category_name(config))
    return f'{category} {config.setting} seed {config.seed} "{printable(run.variant)}"'


def _loader(cache: Path) -> Callable[[Config], Dataset]:
    """A function that loads a config's dataset and keeps the last one for runs that share it."""
    last: dict[str, Dataset] = {}

    def load(config: Config) -> Dataset:
        key = json.dumps(config_lib.to_dict(config)["data"])
        if key not in last:
            last.clear()
            last[key] = load_dataset(config.data, config.data.category, cache)
        return last[key]

    return load


def _measure(run: GridRun, folder: Path, load: Callable[[Config], Dataset]) -> dict[str, Any]:
    """Trains or resumes a run to its end. Returns the `cost` and `evaluation` of its line."""
    dataset = load(run.config)
    first_step = 0
    if (folder / CONFIG_FILE).exists():
        with Checkpoints(folder) as checkpoints:
            first_step = checkpoints.latest_step() or 0
    outcome = train_and_evaluate(run.config, folder, dataset, run.rule, log=lambda _: None)
    assert outcome.evaluation is not None  # a grid always runs in one process
    cost = {
        "train_seconds": outcome.train_seconds,
        "first_step": first_step,
        "evaluate_seconds": outcome.evaluate_seconds,
        "steps": total_steps(run.config, len(cut(dataset.train.inputs, run.config.data))),
    }
    return {"cost": cost, "evaluation": outcome.evaluation.summary}


def _commit() -> str | None:
    """The commit of the package's folder, or None if it is not in a git checkout."""
    command = ["git", "-C", os.fspath(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _machine() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
