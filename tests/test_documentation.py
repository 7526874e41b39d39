"""Runs every command and snippet of README.md and docs/ on small images and with few steps."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import daad_jax
from daad_jax.addressing import Threshold
from daad_jax.cli.train import parse_train_flags
from tests.data.test_folder import make_category

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PRESETS = ROOT / "daad_jax/config/presets.py"
TUTORIAL = ROOT / "docs/tutorial.py"
LEVEL_0 = "--xla_backend_optimization_level=0"
QUICK = [
    "--config.train.steps=2",
    "--config.score.bootstrap_samples=10",
    "--config.model.widths=(8,16)",
    "--config.discriminator.width=8",
    "--config.discriminator.max_width=16",
]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands(path, script):
    """Calls of a script in code, fenced or inline, without comments and continuations."""
    text = path.read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(rf"python {script}[^`\n#]*", text)]


TRAIN_COMMANDS = [
    (path.name, command) for path in [*PAGES, PRESETS] for command in commands(path, r"train\.py")
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder that looks like a clone, with a part's pictures in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "eval.py", "configs", "daad_jax"):
        (folder / name).symlink_to(ROOT / name)
    make_category(folder, "my_part", masks=False)
    (folder / "my_part/test/bent").rename(folder / "my_part/test/bad")
    return folder


def run(arguments, home):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=home,
        # One device, as users have.
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "XLA_FLAGS": LEVEL_0},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_is_something_to_test():
    assert len(TRAIN_COMMANDS) >= 8
    assert len(blocks(ROOT / "README.md", "python")) >= 1
    assert len(blocks(ROOT / "docs/python.md", "python")) >= 5


@pytest.mark.parametrize(("page", "command"), TRAIN_COMMANDS)
def test_every_train_command_is_understood(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    config, *_ = parse_train_flags(["train", *command[2:]])
    config.data.root = config.data.root or "FOLDER"
    custom = ":" in config.memory.addressing  # the module exists only in the document
    daad_jax.check(config, Threshold() if custom else None)


def test_the_commands_and_snippets_of_the_readme_run(home):
    readme = ROOT / "README.md"
    lines = [line for block in blocks(readme, "bash") for line in block.splitlines()]
    lines = [re.sub("^daad-jax", "python -m daad_jax", line) for line in lines]
    scripts = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("python ")]
    assert ["train.py"] in scripts
    assert ["-m", "daad_jax", "predict", "runs/my_part", "new_pictures"] in scripts
    shutil.copytree(home / "my_part/test/good", home / "new_pictures")
    for arguments in scripts:
        quick = QUICK if "train.py" in arguments or "train" in arguments else []
        # A batch of nine training pictures at most: the fabricated part has ten.
        result = run([*arguments, *quick], home)
        assert result.returncode == 0, (arguments, result.stderr[-2000:])
    assert (home / "runs/default-daad_plus/report.html").exists()
    for index, snippet in enumerate(blocks(readme, "python")):
        result = run(["-c", snippet], home)
        assert result.returncode == 0, (index, result.stderr[-2000:])
        assert result.stdout.strip() or "print" not in snippet
    assert (home / "heat.png").exists()
    assert (home / "runs/my_part/predictions/predictions.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("path", [page for page in PAGES if page.name != "README.md"])
def test_snippets_of_the_other_pages_run(path, home):
    for snippet in blocks(path, "python"):
        result = run(["-c", snippet], home)
        assert result.returncode == 0, result.stderr[-2000:]


def test_the_tutorial_has_ten_cells():
    assert len(re.findall(r"^# %%", TUTORIAL.read_text(), re.MULTILINE)) == 10


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    result = run([TUTORIAL], tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "decided as before: True" in result.stdout
    for name in ("gravel-check.html", "heat.png", "gravel.daad", "runs/gravel/report.html"):
        assert (tmp_path / "tutorial" / name).exists(), name


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES)
def test_names_of_the_package_exist(path):
    for name in re.findall(r"`(daad_jax(?:\.\w+)+)", path.read_text()):
        assert resolve(name) is not None, name


def resolve(dotted):
    """The module or attribute that a dotted name means, or None."""
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        parent, _, name = dotted.rpartition(".")
        return getattr(resolve(parent), name, None) if parent else None
