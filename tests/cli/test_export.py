"""``export`` writes one file that scores as the run does."""

import shutil

import numpy as np
import pytest

import daad_jax
from daad_jax.cli import main
from daad_jax.exported import load_exported
from tests.data.test_folder import write


def test_a_run_and_its_file_agree(calibrated_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(calibrated_run), "-o", "part.daad"]) == 0
    told = capsys.readouterr().out
    assert "part.daad: 0." in told
    assert "6 reference pictures" in told
    exported, detector = load_exported("part.daad"), daad_jax.load(calibrated_run)
    pictures = []
    for index in range(3):
        write(tmp_path / f"{index}.png", 70 * index + 5, size=20 + index)
        pictures.append(tmp_path / f"{index}.png")
    found, expected = exported.score(pictures), detector.score(pictures)
    np.testing.assert_allclose(found.decision_score, expected.decision_score, rtol=1e-5)
    np.testing.assert_array_equal(found.defective, expected.defective)
    metadata = exported.metadata
    assert metadata["threshold"] == detector.threshold
    assert metadata["threshold_from"] == detector.calibration.describe()
    assert metadata["training"]["steps"] == 3
    assert str(tmp_path) not in str(metadata)


def test_pictures_for_the_reference_may_be_given(calibrated_run, tmp_path):
    workdir = shutil.copytree(calibrated_run, tmp_path / "w")
    write(tmp_path / "new/0.png", 50)
    assert main(["export", str(workdir), str(tmp_path / "new")]) == 0
    metadata = load_exported(workdir / "model.daad").metadata
    assert len(metadata["reference"]["decision_score"]) == 1


def test_a_run_whose_pictures_are_gone_asks_for_some(calibrated_run, tmp_path, capsys):
    workdir = shutil.copytree(calibrated_run, tmp_path / "w")
    config = workdir / "config.json"
    config.write_text(config.read_text().replace(str(calibrated_run.parent), "/nowhere"))
    assert main(["export", str(workdir)]) == 2
    assert "give some pictures for the reference, export WORKDIR PICTURE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a workdir"),
        (["none"], "none: holds no run"),
        (["{run}", "-o", "no/such/a.daad"], "not a file in a folder that exists"),
        (["{run}", "-o", "."], "not a file in a folder that exists"),
        (["{run}", "none.png"], "none.png: no such file"),
    ],
)
def test_mistakes_are_one_line(calibrated_run, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.format(run=calibrated_run) for word in words]
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
