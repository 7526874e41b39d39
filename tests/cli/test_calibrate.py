"""``calibrate`` changes the threshold of a run, and what it chose stays."""

import csv
import json
import shutil

import numpy as np
import pytest

import daad_jax
from daad_jax.cli import main
from daad_jax.evaluation.metrics import best_f1
from tests.data.test_folder import write


@pytest.fixture
def copy(calibrated_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(calibrated_run, tmp_path / "w")


def calibrate(workdir, *words):
    return main(["calibrate", str(workdir), *map(str, words)])


def summary(workdir):
    return json.loads((workdir / "evaluation.json").read_text())


@pytest.mark.slow
def test_a_chosen_threshold_stays_in_every_evaluation(copy, capsys):
    before = summary(copy)["threshold"]
    assert calibrate(copy, "--threshold=0.125") == 0
    assert "from a value given by hand; on 2 held-out good pictures: at" in capsys.readouterr().out
    assert daad_jax.load(copy).threshold == 0.125
    assert main(["evaluate", f"--workdir={copy}"]) == 0
    result = summary(copy)
    assert result["threshold"] == 0.125
    assert result["threshold_from"].startswith("a value given by hand")
    assert "a value given by hand" in capsys.readouterr().out
    assert "a value given by hand" in (copy / "report.html").read_text()
    with (copy / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["defective"] == "1" for row in rows] == [float(row["A"]) >= 0.125 for row in rows]
    # A field that the threshold is made from, given again, goes back to the held-out pictures.
    assert main(["evaluate", f"--workdir={copy}", "--config.score.threshold_quantile=0.99"]) == 0
    assert summary(copy)["threshold"] == before
    assert daad_jax.load(copy).threshold == before


def test_a_rate_and_its_promise(copy, capsys):
    assert calibrate(copy, "--false_alarm_rate=0.4") == 0
    detector = daad_jax.load(copy)
    assert detector.threshold == np.nextafter(detector.calibration.good_scores[-1], np.inf)
    assert capsys.readouterr().err == ""
    assert detector.calibration.false_alarms.expected == pytest.approx(1 / 3)


def test_new_good_pictures_make_the_threshold(copy, tmp_path, capsys):
    for index in range(9):
        write(tmp_path / f"new/{index}.png", 20 * index + 5)
    (tmp_path / "new/broken.png").write_bytes(b"")
    assert calibrate(copy, "new", "--false_alarm_rate=0.25") == 0
    assert "it is left out" in capsys.readouterr().err
    detector = daad_jax.load(copy)
    scores = detector.score(sorted((tmp_path / "new").glob("[0-9].png"))).decision_score
    np.testing.assert_allclose(detector.calibration.good_scores, np.sort(scores), rtol=1e-4)
    assert detector.threshold == pytest.approx(np.sort(scores)[-2], rel=1e-4)
    assert detector.calibration.origin.good == "new"


def test_a_run_without_held_out_pictures_gets_a_threshold_from_new_ones(copy, tmp_path):
    (copy / "calibration.json").unlink()
    assert calibrate(copy, "--false_alarm_rate=0.1") == 2
    assert calibrate(copy, "--best_f1") == 2
    for index in range(5):
        write(tmp_path / f"new/{index}.png", 20 * index + 5)
    assert calibrate(copy, "new") == 0
    detector = daad_jax.load(copy)
    assert len(detector.calibration.good_scores) == 5
    assert detector.calibration.describe().startswith("the 0.99 quantile of 5 new good pictures")
    scored = detector.score([tmp_path / "new/0.png"])
    assert 0 <= scored.anomaly_score[0] <= 1


def test_the_best_f1_is_marked_as_fitted(copy, capsys):
    assert calibrate(copy, "--best_f1") == 0
    with (copy / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows])
    f1, threshold = best_f1(labels, np.array([float(row["A"]) for row in rows]))
    told = f"the best F1 ({f1:.3f}) on 6 labelled test pictures, fitted on them"
    assert told in capsys.readouterr().out
    assert daad_jax.load(copy).threshold == pytest.approx(threshold, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give new good pictures, --false_alarm_rate, --threshold or --best_f1"),
        (["--best_f1", "--threshold=1"], "--best_f1: give it, --threshold or"),
        (["--false_alarm_rate=0"], "--false_alarm_rate: 0.0 must be between 0 and 1"),
        (["nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_wrong_flags_are_one_line_and_change_nothing(copy, capsys, words, message):
    before = (copy / "calibration.json").read_bytes()
    assert calibrate(copy, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (copy / "calibration.json").read_bytes() == before


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert calibrate(tmp_path / "w", "--threshold=1") == 2
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
