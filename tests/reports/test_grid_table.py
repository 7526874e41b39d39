import pytest

from daad_jax.errors import ConfigError
from daad_jax.reports import grid_table


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
def test_unknown_names_are_errors(rows, numbers, against, message):
    with pytest.raises(ConfigError) as error:
        grid_table.render(SEVERAL, rows, numbers, against)
    assert message in str(error.value)
