"""The verb table, and where a verb's module is looked for."""

import subprocess
import sys
from types import ModuleType

import pytest

from daad_jax import cli
from daad_jax.cli import main


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no verb given; give one of check ("),
        (["tabel"], "tabel: no such verb; did you mean 'table'?"),
        (["table"], "table: no runs; give files of a grid's results"),
        (["table", "--rwos=a", "x.jsonl"], "--rwos: no such flag; did you mean '--rows'?"),
    ],
)
def test_a_wrong_command_is_one_line(args, message, capsys):
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_help_lists_verbs_and_the_flags_of_a_verb(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed for verb in cli.VERBS)
    for verb, flag in {"train": "--config", "evaluate": "--workdir", "table": "--rows"}.items():
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--no_such_flag", "--help"])
        assert not stopped.value.code
        assert flag in capsys.readouterr().out


def test_every_verb_has_a_module():
    for verb in cli.VERBS:
        assert main([verb, "--no_such_flag"]) == 2


def test_a_new_verb_is_one_module_and_one_row(monkeypatch):
    module, calls = ModuleType("daad_jax.cli.inspect"), []
    module.run = calls.append
    monkeypatch.setitem(sys.modules, "daad_jax.cli.inspect", module)
    monkeypatch.setitem(cli.VERBS, "inspect", "look at a run")
    assert main(["inspect", "--workdir=w"]) == 0
    assert calls == [["inspect", "--workdir=w"]]


def test_the_package_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "daad_jax", "evaluate", f"--workdir={tmp_path / 'w'}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "is not a folder" in result.stderr
