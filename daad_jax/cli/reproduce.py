"""``reproduce``: the paper's tables and figures, with its numbers beside ours."""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from daad_jax import addressing, api
from daad_jax.cli import flags as own_flags
from daad_jax.cli.runs import Grid, GridRun, machine, run_all
from daad_jax.data import display_name
from daad_jax.data.sources.layout import PAPER_CATEGORIES
from daad_jax.errors import ConfigError, DataError, GridError, suggestion
from daad_jax.reports import grid_table, text
from daad_jax.reproduction import items, pages
from daad_jax.reproduction.estimate import Estimate, estimate
from daad_jax.reproduction.items import ALL, ITEMS, Run
from daad_jax.reproduction.pages import Report, Shown
from daad_jax.reproduction.scales import SCALES
from daad_jax.runtime.files import user_path
from daad_jax.workdir import lock

RESULTS_FILE = "results.jsonl"
RUNS_FOLDER = "runs"
_PAGES_LOCK = ".pages"  # processes that share a list write the pages one after another
_DECIDED = {
    "setting": "",
    "seed": "; use --seeds",
    "data.source": "",
    "data.category": "; use --categories",
    "data.root": "; use --data",
}
"""Fields that an item sets itself, and the flag that changes them."""


class Asked(NamedTuple):
    """What a command line asks for.

    `runs` are the runs of all items in the order in which they are run. `report` has no lines yet.
    """

    several: list[Shown]
    runs: list[Run]
    report: Report
    dry_run: bool
    pages_only: bool

    @property
    def results(self) -> Path:
        """The file that gets a line per run."""
        return self.report.output / RESULTS_FILE


def run(argv: Sequence[str]) -> None:
    """Runs what has no result yet, and writes a page of each item.

    `argv` is "reproduce", an item and flags. Raises ConfigError before the first run if a flag
    cannot be used, DataError if there is nothing to run on, and GridError after the pages if some
    runs failed.
    """
    asked = parse_reproduce_flags(argv)
    if asked.dry_run:
        _print_estimates(asked)
        return
    grid = Grid([_grid_run(one) for one in asked.runs], asked.results, asked.report.workdir)
    if SCALES[asked.report.scale].tiny:  # compiling takes longer than running
        jax.config.update("jax_disable_most_optimizations", True)
    failure = None
    try:
        if not asked.pages_only:
            run_all(grid)
    except GridError as error:
        failure = error
    with lock.hold(asked.report.output, _PAGES_LOCK, wait=True):
        written = pages.write(asked.report._replace(lines=_lines(asked)), asked.several)
    for path in written:
        print(f"page: {display_name(path)} and {path.stem}.html", flush=True)
    if failure is not None:
        raise failure


def parse_reproduce_flags(argv: Sequence[str]) -> Asked:
    """Parses the item and the flags, and checks every run.

    Raises ConfigError if one of them cannot be used, and DataError if there is nothing to run on.
    """
    values = _define_flags()
    overrides, item = own_flags.parse_overrides(values, argv, positional=True)
    for path in _DECIDED.keys() & overrides.keys():
        raise ConfigError(f"--config.{path}: the item decides it{_DECIDED[path]}")
    names = _items(item)
    if values.scale not in SCALES:
        raise ConfigError(f"--scale: no scale {values.scale!r}; {suggestion(values.scale, SCALES)}")
    if not values.data or not values.output:
        raise ConfigError("--data: give a folder that holds mvtec, mnist, cifar10, and --output")
    data = Path(os.path.abspath(user_path(values.data)))
    if not data.is_dir():
        raise DataError(
            f"{values.data}: is not a folder; give the one that holds mvtec, mnist, cifar10"
        )
    seeds, categories = _seeds(values), _categories(values, data)
    several = [
        Shown(
            name,
            items.subjects(name, values.scale, categories),
            _changed(items.runs(name, values.scale, data, seeds, categories), overrides),
        )
        for name in names
    ]
    runs = items.ordered(one.runs for one in several)
    if not runs:
        wanted = ", ".join(dict.fromkeys(s.category for one in several for s in one.subjects))
        raise DataError(f"{values.data}: holds none of mvtec/CATEGORY with CATEGORY in {wanted}")
    for one in {(one.subject.images, one.model): one for one in runs}.values():
        api.check(one.config)
    output = user_path(values.output)
    options = [f"--scale={values.scale}"]
    for name, given in (("seeds", values.seeds), ("categories", values.categories)):
        options += [f"--{name}={','.join(given)}"] if given else []
    options += [f"--config.{path}={value}" for path, value in overrides.items()]
    report = Report(values.scale, options, overrides, [], output / RUNS_FOLDER, output)
    return Asked(several, runs, report, values.dry_run, values.pages_only)


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("data", None, "Folder of mvtec, mnist, cifar10.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder of results and pages.", flag_values=values)
    flags.DEFINE_string("scale", "small", "paper, small or smoke.", flag_values=values)
    flags.DEFINE_list("seeds", None, "Instead of the scale's seeds.", flag_values=values)
    flags.DEFINE_list("categories", None, "Instead of the item's.", flag_values=values)
    flags.DEFINE_bool("pages_only", False, "Run nothing, write the pages.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Print the runs and their cost.", flag_values=values)
    return values


def _items(item: str | None) -> list[str]:
    known = [*ITEMS, ALL]
    if item is None:
        raise ConfigError(f"reproduce: name a table or figure: {', '.join(known)}")
    if item not in known:
        raise ConfigError(f"reproduce: no item {item!r}; {suggestion(item, known)}")
    return list(ITEMS) if item == ALL else [item]


def _seeds(values: flags.FlagValues) -> list[int]:
    given = own_flags.parse_seeds(values.seeds)
    return list(dict.fromkeys(given)) or list(SCALES[values.scale].seeds)


def _categories(values: flags.FlagValues, data: Path) -> list[str] | None:
    known = {*PAPER_CATEGORIES, *items.STAND_INS}
    for name in values.categories or []:
        is_folder = name not in ("", ".") and (data / items.MVTEC / name).is_dir()
        if name not in known and not is_folder:
            raise ConfigError(f"--categories: no category {name!r}; {suggestion(name, known)}")
    return list(dict.fromkeys(values.categories or [])) or None


def _changed(runs: list[Run], overrides: dict[str, Any]) -> list[Run]:
    for one in runs:
        own_flags.override(one.config, overrides)
    return runs


def _grid_run(run: Run) -> GridRun:
    return GridRun(run.config, run.model, addressing.parse_rule(run.config.memory.addressing))


def _lines(asked: Asked) -> list[grid_table.Line]:
    return grid_table.read_lines(asked.results) if asked.results.exists() else []


def _print_estimates(asked: Asked) -> None:
    """Prints each run that has no result yet with its expected time and memory."""
    lines = _lines(asked)
    done = pages.collect(asked.runs, lines, asked.report.workdir).lines
    left = [one for one in asked.runs if (one.subject, one.model, one.config.seed) not in done]
    found = estimate(left, lines, machine(), lambda line: print(line, flush=True))
    rows = [["category", "model", "seed", "training", "memory", ""]]
    for one, expected in zip(left, found, strict=True):
        name = [one.subject.category, one.model, str(one.config.seed)]
        rows.append([*name, *_expected(expected)])
    print(text.align(rows))
    total = sum(one.seconds or 0 for one in found)
    print(
        f"{len(left)} of {len(asked.runs)} runs are left: {_duration(total)} of training in one "
        f"process, without evaluation; {sum(bool(one.problem) for one in found)} cannot run here"
    )


def _expected(one: Estimate) -> list[str]:
    if one.seconds is None or one.gib is None:
        return ["-", "-", one.problem]
    source = "measured" if one.measured else "from its operations, at this load"
    return [_duration(one.seconds), f"{one.gib:.2f} GiB", source]


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
