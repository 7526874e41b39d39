"""Pages of made-up results, so that every number on them is known."""

import csv

import pytest

from daad_jax import config as config_lib
from daad_jax.reproduction import items, pages
from daad_jax.reproduction.items import ITEMS
from daad_jax.reproduction.pages import Report, Shown
from daad_jax.reproduction.scales import MVTEC, RATES

AUROC = {"ae": 0.80, "ae_skip": 0.78, "memae": 0.79, "daad": 0.85, "daad_plus": 0.84}
RATE_AUROC = dict(zip((f"daad_r{rate}" for rate in RATES), (0.6, 0.7, 0.8, 0.9, 0.7), strict=True))
SEED_GAP = 0.01


def line(run, folder, brightness=0.5):
    """A finished run: R above A by 0.1, and 0.01 more for each seed."""
    auroc = (AUROC | RATE_AUROC).get(run.model, 0.7) + SEED_GAP * run.config.seed
    names = ("R", "L", "A") if run.config.loss.adv else ("R", "A")
    scores = {name: {"image_auroc": auroc - 0.1 * (name != "A")} for name in names}
    if not run.config.loss.adv:
        scores["R"] = scores["A"]
    controls = {"mean": brightness, "pca": 0.66, "untrained": 0.55}
    return {
        "config": config_lib.to_dict(run.config),
        "seed": run.config.seed,
        "folder": folder,
        "commit": "abc1234",
        "machine": {"device": "cpu", "devices": 1, "cpu_cores": 2, "jax": "0.0"},
        "cost": {"train_seconds": 1800.0, "first_step": 0, "steps": 1},
        "evaluation": {
            "decision": "A",
            "scores": scores,
            "controls": {name: {"image_auroc": value} for name, value in controls.items()},
        },
    }


def write_scores(folder, rate):
    """Errors that fall with the rate."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "scores.csv").open("w", newline="") as file:
        rows = [
            ["image", "kind", "label", "R"],
            ["a", "good", 0, 1 / rate],
            ["b", "bent", 1, 3 / rate],
        ]
        csv.writer(file).writerows(rows)


@pytest.fixture
def make(tmp_path):
    """Writes the page of an item at the small scale. Returns its Markdown."""
    for name in ("screw", "magnetic_tile"):
        (tmp_path / "data" / MVTEC / name).mkdir(parents=True, exist_ok=True)

    def make(item, finished=lambda run: True, broken=lambda run: False, seeds=(0, 1)):
        runs = items.runs(item, "small", tmp_path / "data", seeds)
        lines = []
        for number, run in enumerate(runs):
            if broken(run):
                lines.append({"config": config_lib.to_dict(run.config), "error": "no memory left"})
            elif finished(run):
                brightness = 1.0 if run.subject.category == "screw" else 0.5
                lines.append(line(run, str(number), brightness))
                if run.model in RATE_AUROC:
                    write_scores(tmp_path / "runs" / str(number), int(run.model[6:]))
        report = Report("small", ["--scale=small"], {}, lines, tmp_path / "runs", tmp_path)
        shown = Shown(item, items.subjects(item, "small"), runs)
        (path,) = pages.write(report, [shown])
        assert path.with_suffix(".html").read_text().startswith("<!doctype html>")
        return path.read_text()

    return make


def row(page, name):
    found = next(text for text in page.splitlines() if text.startswith(f"| {name} |"))
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_a_page_says_what_was_run_where_and_how(make):
    page = make("table1", finished=lambda run: run.model == "daad_plus")
    assert "python -m daad_jax reproduce table1 --scale=small --data=FOLDER --output=FOLDER" in page
    assert "Machine: cpu, 1 device(s), 2 processor cores, jax 0.0. Commit: abc1234." in page
    assert "10 runs, 5.0 hours of training." in page
    assert row(page, "table1") == ["table1", "10 of 30", "0, 1", "0", "14"]
    assert row(page, "side of a picture, pixels") == [
        "side of a picture, pixels",
        "256",
        "64",
        "64",
    ]


def test_table_1_has_both_numbers_the_verdict_and_the_controls(make):
    page = make("table1")
    assert row(page, "screw") == [
        *("screw", "0.987", "0.845 ± 0.007", "-0.142", "below"),
        *("0.705 ± 0.007", "0.660", "1.000", "0.550", "0.805 ± 0.007"),
    ]
    assert row(page, "carpet<br>not on disk")[1:5] == ["0.866", "", "", "missing"]
    assert row(page, "magnetic_tile")[4] == "not in the paper"
    assert row(page, "mean")[1:3] == ["0.895", "0.845 ± 0.007"]
    assert row(page, "mean")[3:5] == ["", "not comparable<br>14 of 15 categories missing"]
    assert "On `screw` mean brightness alone has AUROC 1.000" in page
    assert "On `magnetic_tile`" not in page


def test_what_has_not_been_run_or_has_failed_is_said(make):
    page = make(
        "table1",
        finished=lambda run: run.subject.category != "gravel",
        broken=lambda run: run.subject.category == "brick" and run.model == "ae",
    )
    assert row(page, "gravel")[2] == "not run"
    assert "Failed: `brick` ae seed 1: 'no memory left'" in page


def test_table_2_compares_means_of_all_classes_only(make):
    def finished(run):
        if run.subject.category == "8":
            return run.model == "daad_plus"
        return run.subject.category != "ship"

    page = make("table2", finished)
    assert row(page, "mnist: mean")[1:5] == ["0.990", "0.845 ± 0.007", "-0.145", "below"]
    assert row(page, "mnist: mean")[5] == "0.705 ± 0.007<br>1 of 10 classes missing"
    assert row(page, "cifar10: mean")[3:5] == ["", "not comparable<br>1 of 10 classes missing"]
    assert "- MemAE: another protocol" in page


def test_the_means_of_the_controls_are_over_the_same_categories_as_ours(make):
    page = make("table1")
    assert row(page, "mean")[6:9] == ["0.660", "1.000", "0.550"]  # of `screw` alone


def test_table_3_answers_two_questions(make):
    page = make("table3")
    assert "**Does the memory beat no memory? Here: yes.** The paper: yes, by +0.051." in page
    assert "**Does DAAD+ beat DAAD? Here: no.** The paper: yes, by +0.050." in page
    assert row(page, "DAAD - AE")[1:4] == ["+0.051", "+0.050 ± 0.000", "yes"]
    cell = "0.855 ± 0.007<br>paper 1.000<br>-0.145 below"
    assert row(page, "screw")[4] == cell


def test_table_4_answers_two_questions(make):
    page = make("table4")
    assert "**Is there a best rate in the middle? Here: yes.** The best here is r = 8." in page
    assert "**Does finer division rebuild better? Here: yes.**" in page
    assert row(page, "gravel, r = 4")[1:] == ["0.2500", "0.7500", "3.00"]
    assert row(page, "8")[1:6] == ["0.845", *["0.905 ± 0.007"] * 4]
    assert "Missing, because not on disk: `carpet`, " in page
    assert "categories that have every row: screw, magnetic_tile, gravel." in page


def test_a_best_rate_needs_a_difference_from_both_ends(make, monkeypatch):
    monkeypatch.setitem(RATE_AUROC, "daad_r16", 0.895)
    question = "**Is there a best rate in the middle? Here: "
    assert f"{question}yes.**" in make("table4")
    one = make("table4", lambda run: run.subject.category == "gravel")
    assert f"{question}undecided.**" in one
    monkeypatch.setitem(RATE_AUROC, "daad_r16", 0.95)
    assert f"{question}no.** The best here is r = 16." in make("table4")


def test_damaged_scores_leave_out_what_needs_them(make, monkeypatch, capsys):
    def damage(folder, rate):
        write(folder, rate)
        if rate == 4:
            (folder / "scores.csv").write_text("image,kind,label,R\n")

    write = write_scores
    monkeypatch.setattr("tests.reproduction.test_pages.write_scores", damage)
    page = make("table4")
    assert "| gravel, r = 8 |" in page
    assert "| gravel, r = 4 |" not in page
    assert "scores.csv: cannot be read" in capsys.readouterr().err
    page = make("figure5")
    assert "`gravel`: cannot be drawn: " in page


def test_our_mean_leaves_out_what_is_not_whole(make):
    page = make("table4", lambda run: (run.model, run.subject.category) != ("daad_r2", "gravel"))
    assert "categories that have every row: screw, magnetic_tile." in page


def test_table_5_shows_each_score_of_one_training(make):
    page = make("table5")
    assert row(page, "DAAD, L_rec + L_adv + L_ali, R")[2] == "0.745 ± 0.007"
    assert row(page, "DAAD, L_rec + L_adv + L_ali, R and L")[1:3] == ["0.895", "0.845 ± 0.007"]


def test_figures_name_the_runs_that_they_lack(make):
    page = make("figure6", finished=lambda run: False)
    assert "`leather`: not on disk." in page
    assert "`gravel`: not run: DAAD, DAAD+." in page


def test_one_page_has_everything(tmp_path):
    report = Report("small", [], {}, [], tmp_path, tmp_path)
    several = [Shown(item, items.subjects(item, "small"), []) for item in ITEMS]
    written = pages.write(report, several)
    assert [path.name for path in written] == [*(f"{item}.md" for item in ITEMS), "reproduction.md"]
    page = written[-1].read_text()
    assert page.index("## Questions") < page.index("## Table 1")
    assert page.count("## Questions") == 1
    assert "Nothing has been run yet." in page
