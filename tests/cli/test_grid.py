import json

import pytest

import daad_jax
from daad_jax.cli import grid, main
from daad_jax.cli.runs import run_name
from daad_jax.data import load_dataset
from daad_jax.reports import grid_table
from tests.cli.test_cli import ROOT, TINY
from tests.data.test_folder import make_category
from tests.reports.test_grid_table import cells


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for name in ("bolt", "nut"):
        make_category(folder, name)
    return folder


def grid_args(root, results, *more):
    return [
        *("grid", f"--results={results}", f"--config={ROOT}/configs/mvtec.py:ae"),
        *(f"--config.data.root={root}", "--config.data.category=all", *TINY, *more),
    ]


def run(*args):
    return main(grid_args(*args))


def lines_of(results):
    return [json.loads(line) for line in results.read_text().splitlines()]


VARIANTS = ["--variant=", "--variant=train.batch_size=16"]  # of ten images: the second fails


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A grid whose second variant fails, run with one seed and then with two."""
    results = tmp_path_factory.mktemp("grid") / "grid.jsonl"
    assert run(root, results, "--categories=nut,bolt", "--seeds=1") == 0
    first = results.read_text()
    code = run(root, results, "--categories=nut,bolt", "--seeds=1,0", *VARIANTS)
    return results, first, code


def test_runs_come_in_order_and_only_what_is_missing(finished):
    results, first, _ = finished
    assert results.read_text().startswith(first)
    order = [(line["variant"], line["category"], line["seed"]) for line in lines_of(results)]
    bad = "train.batch_size=16"
    assert order == [
        *(("", "nut", 1), ("", "bolt", 1), ("", "nut", 0), ("", "bolt", 0)),
        *((bad, "nut", 1), (bad, "nut", 0), (bad, "bolt", 1), (bad, "bolt", 0)),
    ]


def test_a_line_says_what_was_run_where_and_what_came_out(finished):
    results, _, _ = finished
    line = lines_of(results)[0]
    assert list(line) == [
        *("variant", "setting", "seed", "category", "config", "folder", "commit", "machine"),
        *("cost", "evaluation"),
    ]
    folder = results.with_suffix("") / line["folder"]
    assert line["config"] == json.loads((folder / "config.json").read_text())
    assert line["evaluation"] == json.loads((folder / "evaluation.json").read_text())
    assert (line["setting"], line["config"]["seed"]) == ("ae", 1)
    assert line["machine"]["platform"] == "cpu"
    assert line["machine"]["devices"] == 8
    assert (line["cost"]["first_step"], line["cost"]["steps"]) == (0, 3)
    assert line["cost"]["train_seconds"] > 0 < line["cost"]["evaluate_seconds"]
    assert not (folder / "report.html").exists()


def test_a_failed_run_leaves_the_others_and_is_tried_again(finished, root, capsys):
    results, _, code = finished
    assert code == 1
    failed = [line for line in lines_of(results) if "error" in line]
    assert len(failed) == 4
    assert all("train.batch_size: 16 is more than the 10" in line["error"] for line in failed)
    assert not any("evaluation" in line for line in failed)
    before = results.read_text()
    assert run(root, results, "--categories=nut", *VARIANTS) == 1
    captured = capsys.readouterr()
    assert '[1/2] nut ae seed 0 "": already in the results file' in captured.out
    assert 'error: [2/2] nut ae seed 0 "train.batch_size=16": train.batch_size' in captured.err
    assert captured.err.splitlines()[-1].endswith("re-run the same command to try them again")
    assert len(results.read_text().splitlines()) == len(before.splitlines()) + 1


def test_settings_and_epochs_reach_the_configs(root, tmp_path):
    more = ["--settings=memae,daad_plus", "--variant=train.epochs=2 model.skips=false"]
    runs, results, workdir = grid.parse_grid_flags(grid_args(root, tmp_path / "g.jsonl", *more))
    found = [(run.config.setting, run.config.data.category) for run in runs]
    assert found == [
        ("memae", "bolt"),
        ("memae", "nut"),
        ("daad_plus", "bolt"),
        ("daad_plus", "nut"),
    ]
    assert {(run.config.train.epochs, run.config.train.steps) for run in runs} == {(2, None)}
    assert [run.config.loss.adv for run in runs] == [0, 0, 0.5, 0.5]
    assert not any(run.config.model.skips for run in runs)
    assert workdir == results.with_suffix("")


def test_variants_may_hold_tuples_strings_and_spaces(root, tmp_path):
    text = (
        """memory.division_rates="((4, 4, 1), (2, 2, 1))" data.cache_dir='a b' memory.scales=all"""
    )
    args = grid_args(root, tmp_path / "g.jsonl", f"--variant={text}")
    config = grid.parse_grid_flags(args).runs[0].config
    assert config.memory.division_rates == ((4, 4, 1), (2, 2, 1))
    assert (config.data.cache_dir, config.memory.scales) == ("a b", "all")


def test_a_killed_grid_resumes_from_the_last_checkpoint(root, tmp_path, capsys):
    results = tmp_path / "g.jsonl"
    args = [root, results, "--categories=nut", "--seeds=4,5"]
    _, second = grid.parse_grid_flags(grid_args(*args)).runs
    assert run(root, results, "--categories=nut", "--seeds=4") == 0
    whole = results.read_text()
    # The second run died after two of three steps, in the middle of another process's line.
    folder = results.with_suffix("") / run_name(second.config)
    dataset = load_dataset(second.config.data, "nut")
    daad_jax.fit(second.config, dataset, workdir=folder, stop_at=2, log=lambda _: None)
    results.write_text(whole + whole[:50])
    capsys.readouterr()
    assert run(*args) == 0
    assert "cut-off line(s) left out" in capsys.readouterr().err
    texts = results.read_text().splitlines()
    assert texts[:2] == [whole.rstrip(), whole[:50]]
    line = json.loads(texts[2])
    assert (line["seed"], line["cost"]["first_step"]) == (5, 2)
    assert line["evaluation"]["step"] == 3
    assert [line["seed"] for line in grid_table.read_lines(results)] == [4, 5]
    assert run(*args) == 0
    assert len(results.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--variant=", "--variant=memory.itmes=3"], "memory.itmes: no such config field"),
        (["--variant=memory.items=many"], "'memory.items=many': flag --config.memory.items"),
        (["--variant=memory.items=0"], "--variant='memory.items=0': memory.items: 0 must be"),
        (["--variant=seed=3"], "seed: a variant cannot set it; use --seeds"),
        (["--variant=memory.items"], "'memory.items' is not FIELD=VALUE"),
        (["--variant=data.name='x"], "close the quotes"),
        (["--variant=", "--variant=train.steps=3"], "are the same run; leave one out"),
        (["--variant=train.steps=3 train.epochs=3"], "give it or train.steps, not both"),
        (["--seeds=0,x"], "--seeds: 'x' is not a whole number"),
        (["--seeds=-1"], "seed: -1 must be from 0"),
        (["--settings=ae,dad"], "did you mean 'daad'"),
        (["--results=x.txt"], "--results: give a file whose name ends in .jsonl"),
    ],
)
def test_unusable_flags_stop_before_the_first_run(root, tmp_path, flags, message, capsys):
    args = grid_args(root, tmp_path / "g.jsonl", *flags)
    assert main(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_grid_without_a_results_file_is_an_error(root, capsys):
    assert main(["grid", "--config=default"]) == 2
    assert "--results: give a file" in capsys.readouterr().err


def test_the_table_command_reads_several_files(finished, tmp_path, capsys):
    results, _, _ = finished
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(lines_of(results)[0] | {"setting": "other"}) + "\n")
    args = ["table", str(results), str(other), "--rows=category,memory.items"]
    assert main([*args, "--numbers=R,pca,minutes"]) == 0
    table = cells(capsys.readouterr().out)
    assert table[0] == ["category", "memory.items", "seeds", "failed", "R", "pca", "minutes"]
    assert [row[:4] for row in table[2:]] == [["nut", "8", "2", "2"], ["bolt", "8", "2", "2"]]
