"""The installed package works on its own, away from the repository."""

import email
import os
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from daad_jax.config import PRESETS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def run(command, folder, **environment):
    finished = subprocess.run(
        list(map(os.fspath, command)),
        cwd=folder,
        # One device, as users have.
        env={**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    return finished.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but the installed wheel."""
    # The build writes into the source folder, so it gets links instead of the repository.
    source, built, target = (tmp_path_factory.mktemp(name) for name in ("source", "built", "site"))
    for name in ("daad_jax", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", built, source], built)
    (wheel,) = built.glob("*.whl")
    run([*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel], built)
    return target


def metadata(installed):
    (folder,) = installed.glob("daad_jax-*.dist-info")
    return folder


def test_the_wheel_holds_every_module_page_and_table(installed):
    def modules(folder):
        files, kinds = (folder / "daad_jax").rglob("*.*"), (".html", ".json", ".py")
        return {path.relative_to(folder) for path in files if path.suffix in kinds}

    assert modules(installed) == modules(ROOT)
    assert len(modules(installed)) > 50


def test_the_console_script_is_the_command_line(installed):
    scripts = ConfigParser()
    scripts.read(metadata(installed) / "entry_points.txt")
    assert dict(scripts["console_scripts"]) == {"daad-jax": "daad_jax.__main__:main"}
    assert (installed / "bin" / "daad-jax").exists()


def test_the_extras_for_accelerators_ask_for_the_same_range_of_jax(installed):
    described = email.message_from_string((metadata(installed) / "METADATA").read_text())
    required = described.get_all("Requires-Dist")
    plain = next(text for text in required if re.match(r"jax\b(?!\[)", text))
    for extra, own in [("cuda", "cuda13"), ("cuda12", "cuda12"), ("tpu", "tpu")]:
        assert plain.replace("jax", f"jax[{own}]") + f'; extra == "{extra}"' in required


def test_pinned_versions_lie_in_the_declared_ranges():
    from packaging.requirements import Requirement

    text = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))
    extras = PROJECT["optional-dependencies"]
    declared = PROJECT["dependencies"] + extras["dev"] + extras["serve"]
    for requirement in map(Requirement, declared):
        assert pinned[requirement.name] in requirement.specifier, requirement


@pytest.mark.slow
def test_the_default_run_works_in_an_empty_folder(installed, tmp_path):
    arguments = [
        "--config.train.steps=2",
        "--config.score.bootstrap_samples=10",
        "--config.data.category=brick",
        "--config.model.widths=(4,8)",
        "--config.memory.items=8",
        "--config.discriminator.width=4",
        "--config.discriminator.max_width=8",
    ]
    command = [sys.executable, "-m", "daad_jax", "train", *arguments]
    run(command, tmp_path, PYTHONPATH=os.fspath(installed), PYTHONSAFEPATH="1")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list(tmp_path.glob("runs/**/evaluation.json"))) == 1


def test_the_console_script_exits_with_the_commands_code(installed, tmp_path):
    script = installed / "bin" / "daad-jax"
    finished = subprocess.run(
        [sys.executable, script, "train", "--config=no_such_preset"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.fspath(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: --config: ")
    assert len(finished.stderr.splitlines()) == 1


def test_every_preset_is_found_when_installed(installed, tmp_path):
    code = "from daad_jax import config; print(config.__file__, *config.PRESETS)"
    printed = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=os.fspath(installed)).split()
    assert Path(printed[0]).is_relative_to(installed)
    assert printed[1:] == list(PRESETS)
