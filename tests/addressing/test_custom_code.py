"""A rule outside the package in a whole run, and that it never runs without permission."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import daad_jax
from daad_jax import cli
from daad_jax.addressing import parse_rule
from daad_jax.errors import ConfigError
from daad_jax.workdir.run import load_config
from tests.conftest import tiny_config, tiny_dataset

ROOT = Path(__file__).parents[2]
RULE = "own_rules:sharpest(power=3)"
MODULE = '''
import pathlib
pathlib.Path(__file__).with_suffix(".imported").touch()

import jax
import jax.numpy as jnp

def sharpest(similarities, power=2):
    """The softmax weights to a power, scaled to sum to one."""
    weights = jax.nn.softmax(similarities) ** power
    return weights / jnp.sum(weights)
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Folder of a module `own_rules` that creates a file when it is imported."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own_rules.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "own_rules", raising=False)
    yield folder
    sys.modules.pop("own_rules", None)


def imported(folder):
    return (folder / "own_rules.imported").exists()


def forget(folder):
    (folder / "own_rules.imported").unlink()
    sys.modules.pop("own_rules")


@pytest.mark.slow
def test_a_custom_rule_trains_and_evaluates(module, tmp_path, one_device):
    config = tiny_config("daad", memory__addressing=RULE, train__steps=2)
    dataset = tiny_dataset(config)
    with pytest.raises(ConfigError, match="not run without permission"):
        daad_jax.check(config)
    assert not imported(module)
    rule = parse_rule(RULE, allow_custom_code=True)
    daad_jax.check(config, rule)
    options = {"rule": rule, "mesh": one_device}
    state = daad_jax.fit(config, dataset, workdir=tmp_path / "run", log=lambda _: None, **options)
    evaluation = daad_jax.evaluate(config, state, dataset, **options)
    assert 0 <= evaluation.summary["scores"]["R"]["image_auroc"] <= 1


def test_a_workdir_that_names_code_runs_none_of_it_unasked(module, tmp_path, one_device, capsys):
    config = tiny_config("daad", memory__addressing=RULE, train__steps=2)
    workdir, dataset = tmp_path / "run", tiny_dataset(config)
    rule = parse_rule(RULE, allow_custom_code=True)
    daad_jax.fit(config, dataset, workdir=workdir, rule=rule, mesh=one_device, log=lambda _: None)
    forget(module)
    assert load_config(workdir) == config
    with pytest.raises(ConfigError, match="not run without permission.*allow_custom_code=True"):
        daad_jax.load(workdir)
    for argv in (
        ["evaluate", f"--workdir={workdir}"],
        ["train", f"--workdir={workdir}", f"--config.memory.addressing={RULE}"],
    ):
        assert cli.main(argv) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "--allow_custom_code" in line
    assert not imported(module)
    daad_jax.load(workdir, allow_custom_code=True)
    assert imported(module)
    with pytest.raises(ConfigError, match="not run without permission"):
        daad_jax.load(workdir)  # also after the module was imported


def run_train(folder, path=()):
    """The result of `train.py` with permission for custom code and a missing data folder."""
    command = [sys.executable, ROOT / "train.py", "--allow_custom_code", "--workdir=run"]
    command += [f"--config.memory.addressing={RULE}", "--config.data.source=folder"]
    command += ["--config.data.root=nowhere"]
    inherited = os.environ.get("PYTHONPATH")
    places = [*map(str, path), *([inherited] if inherited else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_modules_are_not_imported_from_the_workdir(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    for folder in (tmp_path, workdir):
        (folder / "own_rules.py").write_text(MODULE)
    result = run_train(tmp_path)
    assert result.returncode == 2
    assert "importing own_rules failed" in result.stderr
    assert not list(tmp_path.rglob("*.imported"))


def test_the_flag_of_the_command_permits_the_import(module, tmp_path):
    result = run_train(tmp_path, path=[module])
    assert imported(module)
    assert result.returncode == 2
    assert "nowhere" in result.stderr
