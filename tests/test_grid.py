import json

import pytest

from daad_jax import cli, grid, grid_table, training
from daad_jax.data import load_dataset
from daad_jax.errors import ConfigError
from tests.data.test_folder import make_category
from tests.test_cli import ROOT, TINY


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for name in ("bolt", "nut"):
        make_category(folder, name)
    return folder


def grid_args(root, results, *more):
    return [
        *("grid.py", "run", f"--results={results}", f"--config={ROOT}/configs/mvtec.py:ae"),
        *(f"--config.data.root={root}", "--config.data.category=all", *TINY, *more),
    ]


def run(*args):
    return cli.run(grid.main, grid_args(*args))


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
        *("config", "category", "setting", "variant", "seed", "commit", "machine"),
        *("cost", "evaluation"),
    ]
    (folder,) = results.with_suffix("").glob("nut-ae-1-*")
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
    assert '[1/2] nut ae seed 0 "": has its line' in captured.out
    assert 'error: [2/2] nut ae seed 0 "train.batch_size=16": train.batch_size' in captured.err
    assert captured.err.splitlines()[-1].endswith("the same command tries them again")
    assert len(results.read_text().splitlines()) == len(before.splitlines()) + 1


def test_settings_and_epochs_reach_the_configs(root, tmp_path):
    more = ["--settings=memae,daad_plus", "--variant=train.epochs=2 model.skips=false"]
    runs, results, workdir = grid.parse_run_flags(grid_args(root, tmp_path / "g.jsonl", *more)[1:])
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
    config = grid.parse_run_flags(args[1:])[0][0].config
    assert config.memory.division_rates == ((4, 4, 1), (2, 2, 1))
    assert (config.data.cache_dir, config.memory.scales) == ("a b", "all")


def test_a_killed_grid_goes_on_from_the_last_checkpoint(root, tmp_path, capsys):
    results = tmp_path / "g.jsonl"
    args = [root, results, "--categories=nut", "--seeds=4,5"]
    _, second = grid.parse_run_flags(grid_args(*args)[1:])[0]
    assert run(root, results, "--categories=nut", "--seeds=4") == 0
    whole = results.read_text()
    # The second run died after two of three steps, in the middle of another process's line.
    folder = results.with_suffix("") / grid.run_name(second.config)
    dataset = load_dataset(second.config, "nut")
    training.train(second.config, dataset, folder, stop_at=2, log=lambda _: None)
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
        (["--variant=memory.items=many"], "--variant='memory.items=many': memory.items: 'many'"),
        (["--variant=memory.items=0"], "--variant='memory.items=0': memory.items: 0 must be"),
        (["--variant=seed=3"], "seed: a variant cannot set it; use --seeds"),
        (["--variant=memory.items"], "'memory.items' is not FIELD=VALUE"),
        (["--variant=data.name='x"], "close the quotes"),
        (["--variant=", "--variant=train.steps=3"], "are the same run; leave one out"),
        (["--variant=train.steps=3 train.epochs=3"], "give it or train.steps, not both"),
        (["--seeds=0,x"], "--seeds: 'x' is not a whole number"),
        (["--seeds=-1"], "seed: -1 must lie from 0"),
        (["--settings=ae,dad"], "did you mean 'daad'"),
        (["--results=x.txt"], "--results: give a file whose name ends in .jsonl"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_run(root, tmp_path, flags, message, capsys):
    args = grid_args(root, tmp_path / "g.jsonl", *flags)
    assert cli.run(grid.main, args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["grid.py"], ["grid.py", "tabel"], ["grid.py", "table"]])
def test_the_command_is_checked(args, capsys):
    assert cli.run(grid.main, args) == 2
    assert capsys.readouterr().err.count("\n") == 1


def line_of(seed, auroc, *, setting="daad", variant="", pixel=0.5, **more):
    controls = {"pca": {"image_auroc": 0.25, "turned_around": 0.75}}
    return {
        "config": {"setting": setting, "seed": seed, "memory": {"items": variant or "8"}},
        "category": "nut",
        "setting": setting,
        "variant": variant,
        "seed": seed,
        "commit": "abc",
        "cost": {"train_seconds": 90.0, "first_step": 0, "evaluate_seconds": 1.0, "steps": 3},
        "evaluation": {
            "scores": {"A": {"image_auroc": auroc, "average_precision": 0.1}},
            "pixel_auroc": pixel,
            "controls": controls,
        },
    } | more


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in text.splitlines()]


SEVERAL = [
    *(line_of(0, 0.5), line_of(1, 0.75), line_of(2, 1.0)),
    *(
        line_of(0, 0.625, variant="a|b"),
        line_of(2, 1.25, variant="a|b"),
        line_of(7, 0, variant="a|b"),
    ),
]


def test_the_table_gives_mean_and_sample_deviation_by_row():
    table = cells(grid_table.render(SEVERAL, ["category", "setting", "variant"]))
    assert table == [
        ["category", "setting", "variant", "seeds", "A", "pixel", "pca"],
        ["---", "---", "---", "---:", "---:", "---:", "---:"],
        ["nut", "daad", '""', "3", "0.750 ± 0.250", "0.500 ± 0.000", "0.250 ± 0.000"],
        ["nut", "daad", "a\\|b", "3", "0.625 ± 0.625", "0.500 ± 0.000", "0.250 ± 0.000"],
    ]


def test_differences_are_paired_by_seed():
    table = cells(grid_table.render(SEVERAL, ["setting", "variant"], ["A"], against=""))
    assert table[0] == ["setting", "variant", "seeds", "A", "Δ A"]
    assert table[2][-2:] == ["0.750 ± 0.250", "-"]
    # Seeds 0 and 2: +0.125 and +0.25; seed 7 has no partner.
    assert table[3][-2:] == ["0.625 ± 0.625", "+0.188 ± 0.088 (n=2)"]


def test_differences_do_not_cross_the_other_row_fields():
    lines = [line_of(0, 0.5), line_of(0, 0.9, setting="ae", variant="x")]
    table = cells(grid_table.render(lines, ["setting", "variant"], ["A"], against=""))
    assert table[3][-1] == "-"


def test_the_later_line_of_an_equal_config_counts():
    lines = [line_of(0, 0.5), line_of(0, 0.75, commit="def")]
    assert cells(grid_table.render(lines, ["setting"], ["A"]))[2] == ["daad", "1", "0.750"]
    by_commit = cells(grid_table.render(lines, ["commit"], ["A"]))
    assert by_commit[2:] == [["abc", "1", "0.500"], ["def", "1", "0.750"]]


def test_failed_runs_are_counted_until_they_succeed():
    failed = {name: value for name, value in line_of(1, 0).items() if name != "evaluation"}
    failed["error"] = "no"
    lines = [line_of(0, 0.5), failed]
    assert cells(grid_table.render(lines, ["setting"], ["A"]))[::2] == [
        ["setting", "seeds", "failed", "A"],
        ["daad", "1", "1", "0.500"],
    ]
    table = cells(grid_table.render([*lines, line_of(1, 0.5)], ["setting"], ["A"]))
    assert table[2] == ["daad", "2", "0.500 ± 0.000"]


def test_numbers_that_a_run_lacks_are_left_out():
    resumed = {"train_seconds": 6.0, "first_step": 2, "evaluate_seconds": 1.0, "steps": 3}
    lines = [line_of(0, 0.5, pixel=None), line_of(1, 0.5, pixel=0.25, cost=resumed)]
    lines.append(line_of(0, 0.5, setting="ae", pixel=None))
    lines[1]["evaluation"]["pseudo"] = {"A": 0.125}
    numbers = ["pixel", "minutes", "pseudo.A", "scores.A.average_precision"]
    table = cells(grid_table.render(lines, ["setting"], numbers))
    assert table[2] == ["daad", "2", "0.250", "1.500", "0.125", "0.100 ± 0.000"]
    assert table[3] == ["ae", "1", "-", "1.500", "-", "0.100"]


@pytest.mark.parametrize(
    ("rows", "numbers", "against", "message"),
    [
        (["settng"], None, None, "--rows: no field 'settng'; did you mean 'setting'"),
        ([], None, None, "--rows: give at least one field"),
        (["setting"], ["B"], None, "--numbers: no number 'B'; known: A, pca, pixel, minutes"),
        (["setting"], ["scores.A"], None, "no number 'scores.A'"),
        (["variant"], None, "c", "--against: no variant 'c'; known: '', 'a|b'"),
        (["setting"], None, None, "two runs of seed 0 in the row daad differ in memory.items"),
    ],
)
def test_unknown_names_are_refused(rows, numbers, against, message):
    with pytest.raises(ConfigError) as error:
        grid_table.render(SEVERAL, rows, numbers, against)
    assert message in str(error.value)


def test_the_table_command_reads_several_files(finished, tmp_path, capsys):
    results, _, _ = finished
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(lines_of(results)[0] | {"setting": "other"}) + "\n")
    args = ["grid.py", "table", str(results), str(other), "--rows=category,memory.items"]
    assert cli.run(grid.main, [*args, "--numbers=R,pca,minutes"]) == 0
    table = cells(capsys.readouterr().out)
    assert table[0] == ["category", "memory.items", "seeds", "failed", "R", "pca", "minutes"]
    assert [row[:4] for row in table[2:]] == [["nut", "8", "2", "2"], ["bolt", "8", "2", "2"]]
