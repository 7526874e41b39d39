"""Names of folders, categories and files are names, whatever characters they have."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

import daad_jax
from daad_jax.cli import main
from daad_jax.cli.train import parse_train_flags
from daad_jax.reports import plots
from tests.cli.test_cli import ROOT, TINY
from tests.data.test_folder import write

PIECES = [
    *("a", "B7", " ", "[", "]", "[v2]", "[!a]", "*", "**", "?", "\\", "{x}", "'", '"', "`", "%"),
    *("%2F", "#", "&", ";", "$HOME", "~", "-", "--", "=", ",", ":", "(1)", "+", "|", "<b>", "."),
    *("\u00e9", "e\u0301", "\ufb01", "\u691c\u67fb", "\U0001f600", "\u202e", "\n", "\udcff"),
]
STARTS = ["", "-", "--", " ", "~", "x"]


def make_name(rng):
    """A name of one folder or file; one in eight is as long as the file system allows."""
    name = rng.choice(STARTS) + "".join(rng.choice(PIECES, rng.integers(1, 6)))
    if rng.integers(8) == 0:
        name += "l" * (200 - len(os.fsencode(name)))
    return f"x{name}" if name[0] == "." or name == "~" else name


def check_names(folder, root, category, file, workdir):
    """Trains, evaluates and loads with these names, relative to the current folder."""
    parts = {"train/good": 8, "test/good": 2, "test/bent": 2, "ground_truth/bent": 2}
    for part, count in parts.items():
        for index in range(count):
            path = Path(root, category, part, f"{file}{index}.png")
            write(folder / path, 30 * index + 20 * ("good" in part))
    args = [
        *("train", f"--config={ROOT}/configs/mvtec.py:ae", f"--workdir={workdir}"),
        *(f"--config.data.root={root}", f"--config.data.category={category}", *TINY),
    ]
    assert main(args) == 0
    assert main(["evaluate", f"--workdir={workdir}"]) == 0
    assert set(os.listdir(folder)) == {root, workdir}
    assert (folder / workdir / "report.html").exists()
    with (folder / workdir / "scores.csv").open(encoding="utf-8", newline="") as rows:
        (row, *_) = csv.DictReader(rows)
    picture = os.path.join(root, category, "test/good", f"{file}0.png")
    scored = daad_jax.load(workdir).score([picture])
    np.testing.assert_allclose(scored.reconstruction_score, float(row["R"]), rtol=1e-5)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMED = [
    ("part [v2]", "", "x.", "runs [v2]"),
    ("-a*b?", "c\\d", '\'e"f" ', "**"),
    ("~", "e\u0301", "\u00e9", "\udcff\u691c\n"),
]


@pytest.mark.parametrize(("root", "category", "file", "workdir"), NAMED)
def test_names_are_no_patterns(here, root, category, file, workdir):
    check_names(here, f"{root}data", category, file, f"{workdir}out")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_any_names_go_through_train_evaluate_and_load(here, monkeypatch, seed):
    monkeypatch.setattr(plots, "inline_svg", lambda figure, label: "")  # most of the time
    rng = np.random.default_rng(seed)
    root, category, file, workdir = (make_name(rng) for _ in range(4))
    check_names(here, f"{root}1", category, file, f"{workdir}2")


def test_the_default_workdir_of_a_long_name_fits_the_file_system(here):
    names = ["d" * 250, "d" * 249 + "e", "\u691c" * 83]
    flags = ["train", "--config=folder", "--config.data.category="]
    workdirs = {parse_train_flags([*flags, f"--config.data.root={name}"]).workdir for name in names}
    assert len(workdirs) == len(names)
    for workdir in workdirs:
        workdir.mkdir(parents=True)


def test_a_slash_behind_a_category_is_not_part_of_its_name(here):
    for category in ("dog", "dog/"):
        flags = ["train", "--config=folder", f"--config.data.category={category}"]
        given = parse_train_flags(flags)
        assert given.config.data.category == "dog"
        assert given.workdir == Path("runs/folder-daad_plus-dog")


def test_a_config_file_may_have_a_colon_in_its_path(here):
    (here / "a:b").mkdir()
    text = (ROOT / "configs/folder.py").read_text()
    (here / "a:b/part.py").write_text(text)
    for suffix, setting in {"": "daad_plus", ":ae": "ae"}.items():
        given = parse_train_flags(["train", f"--config=a:b/part.py{suffix}"])
        assert (given.config.setting, given.workdir.name) == (setting, f"part-{setting}")
