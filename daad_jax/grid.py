"""Many runs in one process, each a line of a results file; and the table of such lines.

``python -m daad_jax.grid run`` and ``python -m daad_jax.grid table``, see ``docs/grid.md``.
"""

import ast
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from daad_jax import addressing, checkpoint, cli, grid_table, report, training
from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.data import Dataset, list_categories, load_dataset
from daad_jax.errors import ConfigError, GridError, UserError
from daad_jax.evaluation import evaluate

_SUFFIX = ".jsonl"
_AXES = {"setting": "--settings", "seed": "--seeds", "data.category": "--categories"}
_WORDS = {"true": True, "false": False}


class Run(NamedTuple):
    """One run of a grid.

    Attributes:
        config: validated, of one category.
        variant: the overrides that it was made with, as they were written.
    """

    config: Config
    variant: str


def main(argv: Sequence[str]) -> None:
    """``python -m daad_jax.grid``: runs a grid, or prints its table.

    Raises:
        UserError: for anything that the user can mend.
    """
    commands = {"run": run_main, "table": table_main}
    name = argv[1] if len(argv) > 1 else ""
    if name not in commands:
        raise ConfigError(f"{name or 'grid'}: give one of the commands {', '.join(commands)} first")
    commands[name]([argv[0], *argv[2:]])


def run_main(argv: Sequence[str]) -> None:
    """Trains and evaluates what has no line in the results file yet.

    Raises:
        ConfigError: before the first run, for anything that cannot work in any of them.
        GridError: after the last run, if some failed.
    """
    runs, results, workdir = parse_run_flags(argv)
    old = grid_table.read_lines(results) if results.exists() else []
    done = {
        grid_table.config_key(line["config"])
        for line in grid_table.latest(old)
        if "evaluation" in line
    }
    commit, failed, load = _commit(), 0, _loader(workdir / "cache")
    for index, run in enumerate(runs):
        title = f"[{index + 1}/{len(runs)}] {_title(run)}"
        if grid_table.config_key(config_lib.to_dict(run.config)) in done:
            print(f"{title}: has its line", flush=True)
            continue
        print(title, flush=True)
        line = _describe(run) | {"commit": commit, "machine": _machine()}
        try:
            line |= _train_and_evaluate(run, workdir / run_name(run.config), load)
            print(_aurocs(line["evaluation"]), flush=True)
        except UserError as error:
            failed += 1
            line["error"] = str(error)
            reason = " ".join(str(error).split())
            print(f"error: {title}: {reason}", file=sys.stderr, flush=True)
        grid_table.append(results, line)
    if failed:
        raise GridError(
            f"{results}: {failed} of {len(runs)} runs failed, see `error` in their lines; the same "
            "command tries them again"
        )


def table_main(argv: Sequence[str]) -> None:
    """Prints the table of one or more results files.

    Raises:
        ConfigError: if there is no run, or no such row field, number or label.
    """
    values = flags.FlagValues()
    rows = ["category", "setting", "variant"]
    flags.DEFINE_list("rows", rows, "Fields whose values make a row.", flag_values=values)
    flags.DEFINE_list("numbers", None, "The columns.", flag_values=values)
    flags.DEFINE_string("against", None, "The row to compare with.", flag_values=values)
    files = cli.parse_flags(values, argv, positional=True)
    lines = [line for file in files for line in grid_table.read_lines(Path(file).expanduser())]
    if not lines:
        raise ConfigError(f"{', '.join(files) or 'table'}: no runs; give files of a grid's results")
    print(grid_table.render(lines, values.rows, values.numbers, values.against))


def parse_run_flags(argv: Sequence[str]) -> tuple[list[Run], Path, Path]:
    """Parses the flags of ``run``.

    Returns:
        The runs in their order, the results file and the workdir.

    Raises:
        ConfigError: for a flag, a config or a variant that cannot be used, or two equal runs.
        DataError: if the categories cannot be listed.
    """
    values = _run_flags()
    config = cli.parse_config(argv, values)
    if not values.results or Path(values.results).suffix != _SUFFIX:
        raise ConfigError(f"--results: give a file whose name ends in {_SUFFIX}")
    results = Path(values.results).expanduser()
    bases = [config]
    if values.settings:
        parsed = [cli.with_setting(argv, setting) for setting in values.settings]
        bases = [cli.parse_config(arguments, _run_flags()) for arguments in parsed]
    seeds = [_seed(text) for text in values.seeds] if values.seeds else None
    varied = [
        Run(_vary(base, variant), variant) for base in bases for variant in values.variant or [""]
    ]
    for run in varied:
        addressing.permit(run.config.memory.addressing, allowed=values.allow_custom_code)
    runs = [run for one in varied for run in _spread(one, values.categories, seeds)]
    _check_different(runs)
    return runs, results, Path(values.workdir or results.with_suffix("")).expanduser()


def run_name(config: Config) -> str:
    """The name of a run's folder: its category, setting and seed, and a hash of all fields."""
    digest = hashlib.sha256(grid_table.config_key(config_lib.to_dict(config)).encode())
    category = cli.folder_name(cli.category_name(config))
    return f"{category}-{config.setting}-{config.seed}-{digest.hexdigest()[:12]}"


def _run_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("results", None, "File that gets a line per run.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Holds the runs' folders.", flag_values=values)
    flags.DEFINE_list("settings", None, "Settings of the config file.", flag_values=values)
    flags.DEFINE_list("categories", None, "Instead of data.category.", flag_values=values)
    flags.DEFINE_list("seeds", None, "Instead of seed.", flag_values=values)
    flags.DEFINE_multi_string("variant", None, "FIELD=VALUE ... of one.", flag_values=values)
    cli.define_custom_code(values)
    return values


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"--seeds: {text!r} is not a whole number") from error


def _vary(base: Config, variant: str) -> Config:
    """A copy of a config with a variant's overrides, validated."""
    config = config_lib.from_dict(config_lib.to_dict(base))
    try:
        overrides = _parse_variant(variant)
        for path, value in overrides.items():
            config_lib.set_field(config, path, value)
        cli.settle_length(config, overrides)
        config_lib.validate(config)
    except ConfigError as error:
        if not variant:
            raise
        raise ConfigError(f"--variant={variant!r}: {error}") from error
    return config


def _parse_variant(text: str) -> dict[str, Any]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{error}; close the quotes") from error
    overrides: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not FIELD=VALUE; quote values that hold spaces")
        if path in _AXES:
            raise ConfigError(f"{path}: a variant cannot set it; use {_AXES[path]}")
        overrides[path] = _parse_value(value)
    return overrides


def _parse_value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _WORDS.get(text.lower(), text)


def _spread(run: Run, categories: Sequence[str] | None, seeds: Sequence[int] | None) -> list[Run]:
    """A run for each category and, innermost, each seed."""
    runs = []
    for wanted in categories or [run.config.data.category]:
        config = _copy(run.config, wanted, run.config.seed)
        for category in list_categories(config):
            for seed in seeds or [config.seed]:
                own = _copy(config, category, seed)
                config_lib.validate(own)
                runs.append(Run(own, run.variant))
    return runs


def _copy(config: Config, category: str, seed: int) -> Config:
    copied = config_lib.from_dict(config_lib.to_dict(config))
    copied.data.category, copied.seed = category, seed
    return copied


def _check_different(runs: Sequence[Run]) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        first = seen.setdefault(grid_table.config_key(config_lib.to_dict(run.config)), run)
        if first is not run:
            raise ConfigError(
                f"--variant: {_title(first)} and {_title(run)} are the same run; leave one out"
            )


def _title(run: Run) -> str:
    config = run.config
    category = report.printable(cli.category_name(config))
    return f'{category} {config.setting} seed {config.seed} "{report.printable(run.variant)}"'


def _describe(run: Run) -> dict[str, Any]:
    return {
        "config": config_lib.to_dict(run.config),
        "category": cli.category_name(run.config),
        "setting": run.config.setting,
        "variant": run.variant,
        "seed": run.config.seed,
    }


def _loader(cache: Path) -> Callable[[Config], Dataset]:
    """A `load_dataset` that gives the last data set again where the same one is asked for."""
    last: dict[str, Dataset] = {}

    def load(config: Config) -> Dataset:
        key = json.dumps([config_lib.to_dict(config)["data"], config.train.batch_size])
        if key not in last:
            last.clear()
            last[key] = load_dataset(config, config.data.category, cache)
        return last[key]

    return load


def _train_and_evaluate(
    run: Run, folder: Path, load: Callable[[Config], Dataset]
) -> dict[str, Any]:
    """Goes on with a run to its end; returns the `cost` and `evaluation` of its line."""
    dataset = load(run.config)
    first_step = _checkpointed_step(folder)
    start = time.perf_counter()
    training.train(run.config, dataset, folder, log=lambda _: None)
    trained = time.perf_counter()
    summary = evaluate(folder, dataset).summary
    cost = {
        "train_seconds": trained - start,
        "first_step": first_step,
        "evaluate_seconds": time.perf_counter() - trained,
        "steps": training.total_steps(run.config, len(dataset.train)),
    }
    return {"cost": cost, "evaluation": summary}


def _checkpointed_step(folder: Path) -> int:
    if not (folder / checkpoint.CONFIG_FILE).exists():
        return 0
    with checkpoint.Checkpoints(folder) as checkpoints:
        return checkpoints.latest_step() or 0


def _aurocs(evaluation: dict[str, Any]) -> str:
    scores = evaluation["scores"].items()
    return "  image AUROC " + ", ".join(f"{name} {one['image_auroc']:.4f}" for name, one in scores)


def _commit() -> str | None:
    """The commit of the package's folder, or None where that is no git checkout."""
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
        "devices": jax.device_count(),
        "platform": device.platform,
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
