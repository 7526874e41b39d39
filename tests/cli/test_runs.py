"""Several processes that share one list of runs."""

import json
import os
import subprocess
import sys

import pytest

from daad_jax import addressing
from daad_jax.cli import runs
from daad_jax.cli.runs import Grid, GridRun
from daad_jax.errors import GridError
from daad_jax.reports import grid_table
from daad_jax.workdir import lock
from tests.cli.test_cli import ROOT
from tests.cli.test_grid import grid_args
from tests.conftest import tiny_config
from tests.data.test_folder import make_category

CLAIM = ".claim"


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Two runs that take no time."""
    done = {"cost": {}, "evaluation": {"scores": {}}}
    monkeypatch.setattr(runs, "measure", lambda *_: done)
    configs = [tiny_config("ae", seed=seed, data__category="brick") for seed in (0, 1)]
    rule = addressing.parse_rule(configs[0].memory.addressing)
    return Grid([GridRun(one, "", rule) for one in configs], tmp_path / "g.jsonl", tmp_path / "g")


def seeds(grid):
    return [line["seed"] for line in grid_table.read_lines(grid.results)]


def held(grid):
    """The claim of the first run, as another process would have it."""
    return lock.hold(grid.workdir / runs.run_name(grid.runs[0].config), CLAIM)


def test_a_run_that_another_process_has_comes_last(grid, monkeypatch, capsys):
    claim = held(grid)
    claim.__enter__()
    monkeypatch.setattr(runs.time, "sleep", lambda _: claim.__exit__(None, None, None))
    runs.run_all(grid)
    assert seeds(grid) == [1, 0]
    assert "waiting for 1 run(s) of other processes" in capsys.readouterr().out


@pytest.mark.parametrize(("result", "before"), [("evaluation", 0), ("error", 0), ("error", 1)])
def test_a_run_that_another_process_ends_is_not_run_again(grid, monkeypatch, result, before):
    """`before` is how often it has failed with the same line before this process began."""
    first = grid.runs[0].config
    line = {"seed": 0, "config": runs.config_lib.to_dict(first), "cost": {}, result: {}}
    for _ in range(before):
        grid_table.append(grid.results, line)
    claim = held(grid)
    claim.__enter__()

    def end(_):
        grid_table.append(grid.results, line)
        claim.__exit__(None, None, None)

    monkeypatch.setattr(runs.time, "sleep", end)
    if result == "error":
        with pytest.raises(GridError, match="1 of 2 runs failed"):
            runs.run_all(grid)
    else:
        runs.run_all(grid)
    assert seeds(grid) == [*([0] * before), 1, 0]


def test_a_run_that_ended_just_before_it_was_claimed_is_not_run_again(grid, monkeypatch):
    config = runs.config_lib.to_dict(grid.runs[0].config)
    hold = lock.hold

    def late(folder, name):
        if not grid.results.exists():
            line = {"seed": 0, "config": config, "cost": {}, "evaluation": {"other": True}}
            grid_table.append(grid.results, line)
        return hold(folder, name)

    monkeypatch.setattr(runs.lock, "hold", late)
    runs.run_all(grid)
    assert seeds(grid) == [0, 1]


def test_a_result_without_a_newer_field_counts(grid):
    config = runs.config_lib.to_dict(grid.runs[0].config)
    del config["data"]["tile"]
    line = {"seed": 0, "config": config, "cost": {}, "evaluation": {}}
    grid_table.append(grid.results, line)
    runs.run_all(grid._replace(runs=grid.runs[:1]))
    assert seeds(grid) == [0]


@pytest.mark.slow
def test_two_processes_share_a_list(tmp_path):
    make_category(tmp_path, "nut")
    results = tmp_path / "g.jsonl"
    args = grid_args(tmp_path, results, "--categories=nut", "--seeds=0,1,2,3,4,5")
    command = [sys.executable, "-m", "daad_jax", *args]
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.fspath(ROOT)}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=300)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    found = [json.loads(line)["seed"] for line in results.read_text().splitlines()]
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert all("image AUROC" in text for text in said)  # each did some
