import json

import pytest

from daad_jax.cli import main, reproduce, runs
from daad_jax.reports import grid_table
from daad_jax.reproduction import pages
from daad_jax.reproduction.estimate import Estimate
from daad_jax.reproduction.items import ITEMS
from daad_jax.reproduction.scales import MVTEC
from tests.data.conftest import make_cifar10, make_mnist
from tests.data.test_folder import make_category

DONE = {
    "cost": {"train_seconds": 4000.0, "evaluate_seconds": 1.0, "first_step": 0, "steps": 2000},
    "evaluation": {"decision": "A", "scores": {"A": {"image_auroc": 0.5}}, "controls": {}},
}


@pytest.fixture
def data(tmp_path):
    make_category(tmp_path / "data" / MVTEC, "screw")
    return tmp_path / "data"


@pytest.fixture
def call(data, tmp_path, monkeypatch):
    """Calls the command for `data`; runs take no time. Returns its exit code."""
    monkeypatch.setattr(runs, "measure", lambda *_: DONE)

    def call(item, *more):
        return main(["reproduce", item, f"--data={data}", f"--output={tmp_path / 'out'}", *more])

    return call


def lines(folder):
    return grid_table.read_lines(folder / "out" / "results.jsonl")


def test_each_item_gets_its_page_and_runs_are_shared(call, tmp_path, capsys):
    assert call("table3", "--seeds=0", "--categories=screw") == 0
    assert len(lines(tmp_path)) == 7
    assert "table3.md and table3.html" in capsys.readouterr().out
    assert call("table5", "--seeds=0", "--categories=screw") == 0
    assert len(lines(tmp_path)) == 7 + 5
    page = (tmp_path / "out" / "table5.md").read_text()
    assert "reproduce table5 --scale=small --seeds=0 --categories=screw --data=FOLDER" in page
    assert str(tmp_path) not in page
    assert "| AE, L_rec, R | 0.794 |" in page


def test_an_interrupted_list_goes_on(call, tmp_path, capsys):
    assert call("table4", "--seeds=0", "--categories=screw") == 0
    results = tmp_path / "out" / "results.jsonl"
    whole = results.read_text().splitlines()
    results.write_text("\n".join(whole[:2]) + "\n" + whole[2][:40])
    capsys.readouterr()
    assert call("table4", "--seeds=0", "--categories=screw") == 0
    assert capsys.readouterr().out.count("already in the results file") == 2
    assert len(lines(tmp_path)) == len(whole) == 6


def test_pages_are_made_from_what_there_is(call, tmp_path):
    assert call("table4", "--seeds=0", "--categories=screw,grid", "--pages_only") == 0
    page = (tmp_path / "out" / "table4.md").read_text()
    assert "| table4 | 0 of 6 | 0 | 0 | 1 |" in page
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_failed_run_is_on_the_page_and_in_the_exit_code(call, tmp_path, monkeypatch, capsys):
    def fail(run, *_):
        if run.variant == "daad_r2":
            raise runs.UserError("memory.items: too many")
        return DONE

    monkeypatch.setattr(runs, "measure", fail)
    assert call("table4", "--seeds=0", "--categories=screw") == 1
    assert "1 of 6 runs failed" in capsys.readouterr().err
    assert (
        "daad_r2 seed 0: 'memory.items: too many'" in (tmp_path / "out" / "table4.md").read_text()
    )


def test_fields_reach_every_run_and_the_page(call, tmp_path):
    more = ["--seeds=0", "--categories=screw", "--config.train.steps=7", "--config.memory.items=9"]
    assert call("table4", *more) == 0
    found = {
        (line["config"]["train"]["steps"], line["config"]["memory"]["items"])
        for line in lines(tmp_path)
    }
    assert found == {(7, 9)}
    page = (tmp_path / "out" / "table4.md").read_text()
    assert "| items N of a memory | 500 | 9 |" in page
    assert "--config.memory.items=9" in page


def test_a_dry_run_prints_time_and_memory_and_runs_nothing(call, tmp_path, capsys, monkeypatch):
    expected = [Estimate(3600.0, 0.5), Estimate(None, None, problem="needs 15 GiB")]
    monkeypatch.setattr(reproduce, "estimate", lambda runs, *_: expected[: len(runs)])
    options = ["figure6", "--seeds=0", "--categories=screw"]
    assert call(*options, "--dry_run") == 0
    text = capsys.readouterr().out
    rows = [line.split(maxsplit=6) for line in text.splitlines() if line.startswith("screw")]
    assert rows == [
        ["screw", "daad", "0", "1:00:00", "0.50", "GiB", "from its operations, at this load"],
        ["screw", "daad_plus", "0", "-", "-", "needs", "15 GiB"],
    ]
    assert "2 of 2 runs are left: 1:00:00 of training" in text
    assert "1 cannot run here" in text
    assert not (tmp_path / "out").exists()
    assert call(*options) == 0
    (tmp_path / "out/results.jsonl").write_text(json.dumps(lines(tmp_path)[0]) + "\n")
    capsys.readouterr()
    assert call(*options, "--dry_run") == 0
    assert "1 of 2 runs are left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["tabel3"], "no item 'tabel3'; did you mean 'table3'?"),
        ([], "name a table or figure: table1, table2"),
        (["table3", "--scale=smal"], "no scale 'smal'; did you mean 'small'?"),
        (["table3", "--seeds=a"], "--seeds: 'a' is not a whole number"),
        (["table3", "--seeds=--1"], "--seeds: '--1' is not a whole number"),
        (["table3", "--categories=screw,"], "--categories: no category ''"),
        (["table3", "--config.data.category=tile"], "the item decides it; use --categories"),
        (["table3", "--config.seed=4"], "--config.seed: the item decides it; use --seeds"),
        (["table3", "--categories=scerw"], "no category 'scerw'; did you mean 'screw'?"),
        (["table3", "--data=nowhere"], "nowhere: is not a folder; give the one that holds mvtec"),
        (["table3", "--categories=grid"], "holds none of mvtec/CATEGORY with CATEGORY in grid"),
        (["table3", "--config.memory.itms=3"], "memory.itms: no such config field"),
        (["table3", "--config.train.batch_size=0"], "train.batch_size: 0 must be"),
        (["table3", "--output="], "--output"),
    ],
)
def test_unusable_flags_stop_before_the_first_run(data, tmp_path, flags, message, capsys):
    args = ["reproduce", f"--data={data}", f"--output={tmp_path / 'out'}", *flags]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_named_twice_counts_once(call, tmp_path):
    assert call("table4", "--seeds=0,0", "--categories=screw,screw") == 0
    assert len(lines(tmp_path)) == 6
    page = (tmp_path / "out" / "table4.md").read_text()
    assert "| table4 | 6 of 6 | 0 | 0 | 0 |" in page


def test_epochs_replace_the_steps_of_a_scale_on_the_page_too(call, tmp_path):
    assert call("table4", "--seeds=0", "--categories=screw", "--config.train.epochs=50") == 0
    page = (tmp_path / "out" / "table4.md").read_text()
    assert "| epochs | 1000 | 50 |" in page
    assert "| updates |" not in page


@pytest.mark.slow
def test_everything_at_the_smallest_scale(tmp_path, capsys):
    data, output = tmp_path / "data", tmp_path / "out"
    make_mnist(data / "mnist", train=100)
    make_cifar10(data / "cifar10")
    args = ["reproduce", "all", "--scale=smoke", f"--data={data}", f"--output={output}"]
    assert main(args) == 0
    names = [*ITEMS, pages.PAGE]
    assert {path.name for path in output.glob("*.md")} == {f"{name}.md" for name in names}
    assert {path.name for path in output.glob("*.html")} == {f"{name}.html" for name in names}
    page = (output / "reproduction.md").read_text()
    finished = len(lines(tmp_path))
    assert finished == 23
    assert "`gravel`: not run" not in page
    assert "| gravel | not run" not in page
    assert "| carpet<br>not on disk |" in page
    pictures = {path.name for path in (output / "images").iterdir()}
    assert pictures == {"figure2_gravel.png", "figure5_gravel.png", "figure6_gravel.png"}
    capsys.readouterr()
    assert main(args) == 0
    assert capsys.readouterr().out.count("already in the results file") == finished


def test_the_runs_of_a_command_are_checked_before_they_start(data, tmp_path):
    args = ["reproduce", "all", f"--data={data}", f"--output={tmp_path / 'out'}"]
    asked = reproduce.parse_reproduce_flags(args)
    assert len(asked.runs) == len({repr(run.config) for run in asked.runs})
    assert asked.runs[0].config.data.root == str(data / MVTEC)
