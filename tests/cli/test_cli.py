import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daad_jax.cli import main
from daad_jax.cli.train import parse_train_flags
from daad_jax.data.sources.layout import PAPER_CATEGORIES
from daad_jax.errors import ConfigError
from tests.data.test_folder import make_category

ROOT = Path(__file__).parents[2]
TINY = [
    "--config.data.image_size=16",
    "--config.data.channels=1",
    "--config.model.widths=(4,8)",
    "--config.memory.division_rates=(2,2,1)",
    "--config.memory.items=8",
    "--config.discriminator.width=4",
    "--config.discriminator.max_width=8",
    "--config.train.steps=3",
    "--config.score.bootstrap_samples=10",
]


def train_args(root, workdir, *more, setting="daad_plus", category="nut"):
    return [
        "train",
        f"--config={ROOT}/configs/mvtec.py:{setting}",
        f"--workdir={workdir}",
        f"--config.data.root={root}",
        f"--config.data.category={category}",
        *TINY,
        *more,
    ]


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


@pytest.fixture(scope="module")
def workdir(root, tmp_path_factory):
    """A finished run that bad input must leave as it is."""
    folder = tmp_path_factory.mktemp("runs") / "nut"
    assert main(train_args(root, folder)) == 0
    return folder


def test_eval_prints_the_same_tables_as_train(root, tmp_path, capsys):
    assert main(train_args(root, tmp_path / "w")) == 0
    trained = capsys.readouterr().out
    first = (tmp_path / "w/evaluation.json").read_text()
    assert main(["evaluate", f"--workdir={tmp_path / 'w'}"]) == 0
    evaluated = capsys.readouterr().out
    assert "image AUROC" in evaluated
    assert evaluated.strip() in trained
    assert (tmp_path / "w/evaluation.json").read_text() == first


def test_train_on_a_finished_workdir_resumes(root, workdir, capsys):
    assert main(train_args(root, workdir)) == 0
    assert "resuming at step 3 of 3" in capsys.readouterr().out


@pytest.mark.slow
def test_all_categories_give_one_table_in_the_papers_order(tmp_path, capsys):
    some = ("grid", "carpet", "zipper", "bottle")
    for name in some:
        make_category(tmp_path / "parts", name, masks=False)
    args = train_args(tmp_path / "parts", tmp_path / "w", category="all", setting="ae")
    assert main(args) == 0
    out = capsys.readouterr().out
    table = out[out.rindex("category ") :].splitlines()
    rows = [line.split()[0] for line in table if line.strip()]
    assert rows[2:6] == [name for name in PAPER_CATEGORIES if name in some]
    assert rows[6] == "mean"
    # A second call finds every category finished and gives the same table.
    assert main(args) == 0
    again = capsys.readouterr().out
    assert again.count("resuming at step 3 of 3") == len(some)
    assert table == again[again.rindex("category ") :].splitlines()


def test_eval_takes_a_workdir_of_several_categories(tmp_path, capsys):
    for name in ("bolt", "nut"):
        make_category(tmp_path / "parts", name)
    args = train_args(tmp_path / "parts", tmp_path / "w", category="all", setting="ae")
    assert main(args) == 0
    out = capsys.readouterr().out
    assert json.loads((tmp_path / "w/bolt/config.json").read_text())["data"]["category"] == "bolt"
    assert main(["evaluate", f"--workdir={tmp_path / 'w'}"]) == 0
    again = capsys.readouterr().out
    assert out[out.rindex("category ") :] == again[again.rindex("category ") :]


@pytest.mark.slow
def test_runs_of_one_and_of_all_categories_do_not_mix(tmp_path, capsys):
    make_category(tmp_path / "parts", "nut")
    several = train_args(tmp_path / "parts", tmp_path / "all", category="all", setting="ae")
    assert main(several) == 0
    one = train_args(tmp_path / "parts", tmp_path / "all", setting="ae")
    assert main(one) == 2
    assert "holds runs of several categories" in capsys.readouterr().err
    one = train_args(tmp_path / "parts", tmp_path / "one", setting="ae")
    assert main(one) == 0
    several = train_args(tmp_path / "parts", tmp_path / "one", category="all", setting="ae")
    assert main(several) == 2
    assert "holds the run of one category" in capsys.readouterr().err
    other = train_args(tmp_path / "parts", tmp_path / "runs/daad", setting="daad")
    assert main(other) == 0
    (tmp_path / "one").rename(tmp_path / "runs/ae")
    assert main(["evaluate", f"--workdir={tmp_path / 'runs'}"]) == 2
    assert "ae and daad differ in more than the category" in capsys.readouterr().err


def test_a_run_is_not_taken_for_one_on_other_images(root, workdir, tmp_path, capsys):
    before = snapshot(workdir)
    folder = make_category(tmp_path / "parts")
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(folder / "train/good/000.png")
    assert main(train_args(tmp_path / "parts", workdir)) == 2
    assert "was trained on 10 other images" in capsys.readouterr().err
    assert snapshot(workdir) == before


def test_epochs_given_by_hand_replace_the_steps(monkeypatch):
    flags = ["train", f"--config={ROOT}/configs/folder.py"]
    config, *_ = parse_train_flags([*flags, "--config.train.epochs=3"])
    assert (config.train.epochs, config.train.steps) == (3, None)
    with pytest.raises(ConfigError, match="give it or train.steps, not both"):
        parse_train_flags([*flags, "--config.train.epochs=3", "--config.train.steps=3"])


def test_a_layout_is_checked_for_all_categories_before_the_first_is_trained(tmp_path, capsys):
    make_category(tmp_path / "parts", "a")
    broken = make_category(tmp_path / "parts", "b")
    (broken / "train/good").rename(broken / "train/fine")
    args = train_args(tmp_path / "parts", tmp_path / "w", category="all", setting="ae")
    assert main(args) == 2
    assert "b/train/good: missing" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{}", "is not a Python file"),
        ("broken.py", "def get_config(:", "SyntaxError"),
        ("empty.py", "", "get_config"),
        ("fails.py", "def get_config():\n    return {}['x']", "KeyError('x')"),
        ("other.py", "def get_config():\n    return 3", "must return a daad_jax Config"),
    ],
)
def test_config_files_that_cannot_be_used_are_named(tmp_path, name, text, message, capsys):
    (tmp_path / name).write_text(text)
    args = ["train", f"--config={tmp_path / name}", f"--workdir={tmp_path / 'w'}"]
    assert main(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_workdir_that_is_a_file_is_named(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(train_args(root, tmp_path / "file")) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


BAD_FLAGS = [
    (["--config.memory.division_rates=(3,2,1)"], "rate 3 does not divide the height of scale 1"),
    (["--config.memory.adressing=x"], "did you mean 'memory.addressing'"),
    (["--config.memory.addressing=treshold"], "did you mean 'threshold'"),
    (["--config.memory.itmes=3"], "--config.memory.itmes: no such config field"),
    (["--config.train.steps=many"], "train.steps: 'many' is not a whole number"),
    (["--config.model.widths=(a,b)"], "widths"),
    (["--config.data.root=/nowhere"], "data.root: /nowhere is not a folder"),
    (["--config.train.batch_size=16"], "train.batch_size: is 16, but the run in"),
    (["--config.memory.items=9"], "memory.items: is 9, but the run in"),
    (["--wrkdir=x"], "did you mean '--workdir'"),
    (["stray"], "data.root: the folder is given already, as 'stray'; leave one out"),
    (["--config.=1"], "no such config field"),
    (["--flagfile=nope"], "nope"),
    (["--config.data.image_size=2147483648"], "data.image_size: 2147483648 must be from"),
]


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS)
def test_bad_flags_give_one_line_and_leave_the_workdir(root, workdir, flags, message, capsys):
    before = snapshot(workdir)
    code = main(train_args(root, workdir, *flags))
    captured = capsys.readouterr()
    assert code != 0
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert "Traceback" not in captured.out
    assert snapshot(workdir) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/mvtec.py:dad", "no setting 'dad'; did you mean 'daad'"),
        ("configs/mvtek.py", "configs/mvtek.py; did you mean 'mvtec'"),
    ],
)
def test_bad_configs_are_named(tmp_path, config, message, capsys):
    args = ["train", f"--config={ROOT / config}", f"--workdir={tmp_path / 'w'}"]
    assert main(args) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.data.category=nutt", "no 'nutt' under"),
        ("--config.train.batch_size=16", "train.batch_size: 16 is more than the 10"),
    ],
)
def test_bad_data_makes_no_workdir(root, tmp_path, flag, message, capsys):
    assert main(train_args(root, tmp_path / "w", flag)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_broken_image_stops_before_anything_is_written(tmp_path, capsys):
    make_category(tmp_path / "parts")
    (tmp_path / "parts/nut/train/good/004.png").write_bytes(b"\x89PNG broken")
    assert main(train_args(tmp_path / "parts", tmp_path / "w")) == 2
    assert "004.png: is not a whole image file" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.mkdir(), "holds no run"),
    ],
)
def test_eval_names_a_workdir_without_a_run(tmp_path, make, message, capsys):
    make(tmp_path / "w")
    assert main(["evaluate", f"--workdir={tmp_path / 'w'}"]) == 2
    assert message in capsys.readouterr().err


def test_eval_names_a_workdir_without_a_checkpoint(root, tmp_path, capsys):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "data": {"source": "folder", "root": str(root), "category": "nut", "channels": 1},
                "model": {"widths": [8]},
            }
        )
    )
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 2
    assert "no checkpoint to load; train there first" in capsys.readouterr().err
    assert main(["evaluate"]) == 2
    assert "--workdir: give the folder" in capsys.readouterr().err


def test_an_unwritable_workdir_gives_one_line(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = main(train_args(root, tmp_path / "file" / "w"))
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.count("\n") == 1


def test_a_program_too_large_for_the_memory_is_an_error(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("daad_jax.train.program.available_memory", lambda mesh: 10_000)
    # Another number of items than elsewhere, so that no program compiled before serves it.
    args = train_args(root, tmp_path / "w", "--config.memory.items=11")
    assert main(args) == 2
    assert "GiB are available; lower memory.items" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_the_scripts_exit_with_the_code(script, tmp_path):
    result = subprocess.run(
        [sys.executable, os.fspath(ROOT / script), "--wrkdir=x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_images_of_every_mode_are_accepted(tmp_path):
    folder = make_category(tmp_path / "parts")
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    rgb = Image.fromarray(colour)
    rgb.convert("RGBA").save(folder / "train/good/rgba.png")
    rgb.convert("CMYK").save(folder / "train/good/cmyk.tiff")
    rgb.quantize(8).save(folder / "train/good/palette.png")
    Image.fromarray(colour[..., 0].astype(np.uint16) * 256).save(folder / "train/good/deep.png")
    rgb.save(folder / "train/good/photo.jpg")
    args = train_args(tmp_path / "parts", tmp_path / "w", "--config.data.channels=3", setting="ae")
    assert main(args) == 0
