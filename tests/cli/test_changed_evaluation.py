"""What a finished run may change: where its data is, its test images and its score settings."""

import json
import shutil

import pytest

import daad_jax
from daad_jax.cli import main
from daad_jax.errors import CheckpointError
from tests.cli.test_cli import snapshot, train_args
from tests.data.test_folder import make_category, write

CALIBRATED = ["--config.data.calibration_fraction=0.2", "--config.score.protocol=calibrated"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with data in ``here`` and a run in ``w``, trained with a relative `data.root`."""
    folder = tmp_path_factory.mktemp("finished")
    make_category(folder / "here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        args = train_args("here", "w", *CALIBRATED, "--config.train.batch_size=8")
        assert main(args) == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A copy of the run, seen from another folder."""
    shutil.copytree(finished / "w", tmp_path / "w")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "w"


def evaluate(workdir, *fields):
    return main(["evaluate", f"--workdir={workdir}", *(f"--config.{field}" for field in fields)])


def result(workdir):
    return json.loads((workdir / "evaluation.json").read_text())


@pytest.mark.slow
def test_a_run_is_evaluated_from_any_folder_and_says_what_with(finished, copy):
    before = snapshot(copy)
    assert evaluate(copy) == 0
    changed = {path for path, content in snapshot(copy).items() if content != before.get(path)}
    assert not {path.name for path in changed} & {"evaluation.json", "scores.csv", "config.json"}
    made_with = result(copy)["made_with"]
    assert made_with["data.root"] == str(finished / "here")
    assert made_with["score.threshold_quantile"] == 0.99


def test_the_data_may_move(finished, copy, tmp_path):
    before = result(copy)
    shutil.copytree(finished / "here", tmp_path / "elsewhere/moved")
    assert evaluate(copy, "data.root=moved") == 0
    after = result(copy)
    assert after.pop("made_with")["data.root"] == f"{tmp_path}/elsewhere/moved"
    before.pop("made_with")
    assert after == before
    stored = json.loads((copy / "config.json").read_text())["data"]["root"]
    assert stored == f"{tmp_path}/elsewhere/moved"


def test_another_test_folder(copy, tmp_path):
    write(tmp_path / "elsewhere/new/nut/test/good/a.png", 10)
    write(tmp_path / "elsewhere/new/nut/test/odd/b.png", 250)
    assert evaluate(copy, "data.test_root=new") == 0
    after = result(copy)
    assert (after["test_good"], after["test_defective"], list(after["by_kind"])) == (1, 1, ["odd"])
    assert after["made_with"]["data.test_root"] == f"{tmp_path}/elsewhere/new"
    assert after["train_images"] == 8


FIELDS = {
    "threshold_quantile": 0.5,
    "gamma": 0.25,
    "map_sigma": 0.5,
    "map_quantile": 0.5,
    "decision": "R_max",
    "protocol": "paper",
    "bootstrap_samples": 5,
    "batch_size": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_a_score_setting_may_change_and_load_follows(copy, name):
    before, value = result(copy), FIELDS[name]
    assert evaluate(copy, f"score.{name}={value}") == 0
    after = result(copy)
    assert after["made_with"][f"score.{name}"] == value
    if name in ("threshold_quantile", "decision"):
        assert after["threshold"] != before["threshold"]
    detector = daad_jax.load(copy)
    assert detector.threshold == after["threshold"]
    assert getattr(detector.config.score, name) == value


def test_training_takes_other_score_settings_too(finished, copy, capsys):
    args = train_args(finished / "here", copy, *CALIBRATED, "--config.train.batch_size=8")
    assert main([*args, "--config.score.threshold_quantile=0.5"]) == 0
    assert "resuming at step 3 of 3" in capsys.readouterr().out
    assert result(copy)["made_with"]["score.threshold_quantile"] == 0.5
    assert evaluate(copy, "score.threshold_quantile=0.99") == 0
    assert result(copy) == result(finished / "w")


def test_a_threshold_of_other_settings_is_not_used(copy):
    """As after a kill between the two files."""
    config = json.loads((copy / "config.json").read_text())
    config["score"]["gamma"] = 0.5
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"is for score\.gamma=0\.9, the config has another"):
        daad_jax.load(copy)
    assert evaluate(copy) == 0
    assert daad_jax.load(copy).threshold


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("memory.items=9", "memory.items: belongs to the training and cannot change after it"),
        ("data.image_size=32", "data.image_size: belongs to the training"),
        ("train.steps=9", "train.steps: belongs to the training"),
        ("data.category=x", "data.category: belongs to the training"),
        ("score.decision=Q", "score.decision: no score 'Q'"),
        ("score.gama=1", "score.gama: no such config field; did you mean 'score.gamma'"),
        ("score.gamma=2", "score.gamma: 2.0 must be from 0 to 1"),
        ("data.root=nowhere", "elsewhere/nowhere is not a folder"),
    ],
)
def test_other_changes_are_one_line_and_change_nothing(copy, field, message, capsys):
    before = snapshot(copy)
    assert evaluate(copy, field) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert snapshot(copy) == before


def test_fields_of_a_flagfile_count_wherever_it_stands(copy, tmp_path, capsys):
    (tmp_path / "f.txt").write_text("--config.score.gamma=0.5\n--config.score.decision=R\n")
    flags = [
        "--workdir",
        str(copy),
        "--config.score.map_sigma",
        "0.5",
        f"--flagfile={tmp_path}/f.txt",
    ]
    assert main(["evaluate", *flags, f"--flagfile={tmp_path}/f.txt"]) == 0
    made_with = result(copy)["made_with"]
    assert [made_with[f"score.{name}"] for name in ("gamma", "decision")] == [0.5, "R"]
    (tmp_path / "f.txt").write_text("--config.score.gama=0.5\n")
    assert main(["evaluate", *flags, f"--flagfile={tmp_path}/f.txt"]) == 2
    assert "score.gama: no such config field; did you mean" in capsys.readouterr().err
