"""Trains and evaluates many configs, with a line of a results file for each.

Several processes may work on one list: each takes the runs that no other one holds.
"""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from daad_jax import config as config_lib
from daad_jax.addressing import Rule
from daad_jax.cli.train import category_name, folder_name, train_and_evaluate
from daad_jax.config import Config
from daad_jax.data import Dataset, load_dataset
from daad_jax.data.tiles import cut
from daad_jax.errors import GridError, InUseError, UserError, printable
from daad_jax.reports import grid_table
from daad_jax.runtime import signals
from daad_jax.train.loop import total_steps
from daad_jax.workdir import lock
from daad_jax.workdir.checkpoint import Checkpoints
from daad_jax.workdir.run import CONFIG_FILE

_CLAIM_FILE = ".claim"
_WAIT_SECONDS = 0.5


class GridRun(NamedTuple):
    """A run: its checked config for one category, its variant as written, and its rule."""

    config: Config
    variant: str
    rule: Rule


class Grid(NamedTuple):
    """All runs of a grid in order, the results file, and the folder that holds the workdirs."""

    runs: list[GridRun]
    results: Path
    workdir: Path


def run_all(grid: Grid) -> None:
    """Trains and evaluates every run that has no result yet in the results file.

    A run that another process has is left to it and looked at again after the others. Raises
    GridError at the end if some runs failed, here or in another process since the start.
    """
    labels = [f"[{i + 1}/{len(grid.runs)}] {title(run)}" for i, run in enumerate(grid.runs)]
    waiting, failed = list(zip(labels, grid.runs, strict=True)), 0
    worker = _Worker(grid)
    while waiting:
        held = []
        for label, run in waiting:
            succeeded = worker.take(run, label)
            failed += succeeded is False
            if succeeded is None:
                held.append((label, run))
        if held:
            if len(held) < len(waiting):
                print(f"waiting for {len(held)} run(s) of other processes", flush=True)
            signals.check()
            time.sleep(_WAIT_SECONDS)
        waiting = held
    if failed:
        raise GridError(
            f"{grid.results}: {failed} of {len(grid.runs)} runs failed, see `error` in their "
            "lines; re-run the same command to try them again"
        )


def run_name(config: Config) -> str:
    """The name of a run's folder: its category, setting and seed, and a hash of all fields."""
    text = json.dumps(config_lib.to_dict(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    category = folder_name(category_name(config))
    return f"{category}-{config.setting}-{config.seed}-{digest[:12]}"


def title(run: GridRun) -> str:
    """What identifies a run, for a line of output."""
    config = run.config
    category = printable(category_name(config))
    return f'{category} {config.setting} seed {config.seed} "{printable(run.variant)}"'


def config_key(config: Config) -> str:
    """Text that is the same for equal configs."""
    return grid_table.config_key(config_lib.to_dict(config))


class _Worker:
    """What one process does with the runs of a grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._commit, self._load = grid, _commit(), _loader(grid.workdir / "cache")
        self._cut_off = 0
        self._before = len(self._lines())

    def take(self, run: GridRun, label: str) -> bool | None:
        """Sees to one run. Returns whether it has a result, or None if another process has it."""
        folder = self._grid.workdir / run_name(run.config)
        settled = self._settled(run)
        if settled is not None:
            print(
                f"{label}: {'already in' if settled else 'failed, see'} the results file",
                flush=True,
            )
            return settled
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.hold(folder, _CLAIM_FILE))
            except InUseError:
                return None
            settled = self._settled(run)  # another process may just have finished it
            return self._measure(run, folder, label) if settled is None else settled

    def _lines(self) -> list[grid_table.Line]:
        if not self._grid.results.exists():
            return []
        lines, cut_off = grid_table.parse_lines(self._grid.results)
        if cut_off > self._cut_off:
            grid_table.warn_cut_off(self._grid.results, cut_off)
            self._cut_off = cut_off
        return lines

    def _settled(self, run: GridRun) -> bool | None:
        """Whether the run has ended well. None: it has no result, or failed before this process."""
        key, lines = config_key(run.config), self._lines()
        for index in range(len(lines) - 1, -1, -1):
            if grid_table.config_key(lines[index]["config"]) == key:
                has_result = "evaluation" in lines[index]
                return has_result if has_result or index >= self._before else None
        return None

    def _measure(self, run: GridRun, folder: Path, label: str) -> bool:
        print(label, flush=True)
        config, succeeded = run.config, True
        line: dict[str, Any] = {
            "variant": run.variant,
            "setting": config.setting,
            "seed": config.seed,
            "category": category_name(config),
            "config": config_lib.to_dict(config),
            "folder": folder.name,
            "commit": self._commit,
            "machine": machine(),
        }
        try:
            line |= measure(run, folder, self._load)
            scores = line["evaluation"]["scores"].items()
            found = [f"{name} {one['image_auroc']:.4f}" for name, one in scores if one]
            print(f"  image AUROC {', '.join(found) or 'none'}", flush=True)
        except UserError as error:
            line["error"], succeeded = str(error), False
            reason = " ".join(str(error).split())
            print(f"error: {label}: {reason}", file=sys.stderr, flush=True)
        grid_table.append(self._grid.results, line)
        return succeeded


def measure(run: GridRun, folder: Path, load: Callable[[Config], Dataset]) -> dict[str, Any]:
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


def machine() -> dict[str, Any]:
    """The devices, processor and versions of this process, for a line of results."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


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


def _commit() -> str | None:
    """The commit of the package's folder, or None if it is not in a git checkout."""
    command = ["git", "-C", os.fspath(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
