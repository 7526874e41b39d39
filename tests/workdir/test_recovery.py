"""Whole runs that are killed, meet a full disk or find damaged files, and are resumed."""

import json
import shutil

import numpy as np
import pytest

import daad_jax
from daad_jax import api, cli
from daad_jax.errors import CheckpointError, SaveError
from daad_jax.reports import html
from daad_jax.train.metrics_log import METRICS_FILE, read_metrics
from daad_jax.workdir import checkpoint, lock, run
from tests.conftest import tiny_config, tiny_dataset
from tests.data.test_folder import make_category
from tests.processes import (
    COMMAND,
    LIMIT,
    PAUSE,
    child,
    files_of,
    kill,
    names_in,
    train_args,
    wait_for,
)
from tests.workdir.checkpoints import largest_file, line_of, truncate
from tests.workdir.test_failed_save import file_size_limit


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


def arguments(root, workdir, steps=6):
    more = [f"--config.train.steps={steps}", "--config.train.checkpoint_every=2"]
    return train_args(root, workdir, *more)


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    """A finished run with checkpoints at steps 4 and 6."""
    workdir = tmp_path_factory.mktemp("runs") / "w"
    assert cli.main(arguments(root, workdir)) == 0
    return workdir


def assert_same_results(workdir, undisturbed):
    for name in (METRICS_FILE, "evaluation.json", "scores.csv"):
        assert (workdir / name).read_text() == (undisturbed / name).read_text()


def assert_locked(workdir, capsys):
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {workdir}: another process trains or evaluates there")
    assert captured.err.count("\n") == 1
    assert captured.out == ""  # before any data was loaded


@pytest.mark.slow
def test_a_run_locks_its_workdir_until_it_is_killed_in_a_save_and_can_then_be_resumed(
    root, undisturbed, tmp_path, capsys
):
    workdir = tmp_path / "w"
    pause = (PAUSE + COMMAND, "os.rename", r"checkpoints/4$")
    with child(*pause, *arguments(root, workdir)) as process:
        wait_for(process, "paused")
        before = files_of(workdir)
        assert cli.main(arguments(root, workdir)) == 2
        assert_locked(workdir, capsys)
        root.rename(root.with_name("away"))  # The lock is checked before the data is loaded.
        assert cli.main(["evaluate", f"--workdir={workdir}"]) == 2
        root.with_name("away").rename(root)
        assert_locked(workdir, capsys)
        assert daad_jax.load(workdir).score([np.zeros((16, 16), np.uint8)])
        assert files_of(workdir) == before
        kill(process)
    assert cli.main(arguments(root, workdir)) == 0
    assert "resuming at step 2 of 6" in capsys.readouterr().out
    assert names_in(workdir / "checkpoints") == ["4", "6"]
    assert_same_results(workdir, undisturbed)


def test_a_full_disk_ends_training_with_one_error_line(root, undisturbed, tmp_path, capsys):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    before = files_of(workdir / "checkpoints")
    with child(LIMIT + COMMAND, "", "", *arguments(root, workdir, steps=8)) as process:
        _, error = process.communicate()
    assert process.returncode == 1
    (line,) = error.splitlines()
    assert line.startswith(f"error: {workdir}/checkpoints/8: cannot be saved (")
    assert line.endswith("re-run the same command to resume from step 6")
    assert before.items() <= files_of(workdir / "checkpoints").items()
    assert cli.main(arguments(root, workdir, steps=8)) == 0
    assert "resuming at step 6 of 8" in capsys.readouterr().out
    assert names_in(workdir / "checkpoints") == ["6", "8"]


def test_a_failed_save_stops_training_before_the_next_save(tmp_path, one_device):
    config = tiny_config("ae", train__steps=1000, train__checkpoint_every=500, train__log_every=50)
    with pytest.raises(SaveError), file_size_limit(10_000):
        fit(config, tmp_path, one_device)
    steps = [json.loads(line)["step"] for line in (tmp_path / METRICS_FILE).open()]
    assert 500 <= steps[-1] < 1000


def fit(config, workdir, mesh):
    return api.fit(config, tiny_dataset(config), workdir=workdir, mesh=mesh, log=lambda _: None)


def test_a_log_that_fills_the_disk_is_named(tmp_path, one_device):
    fit(tiny_config(train__steps=4), tmp_path, one_device)
    config = tiny_config(train__steps=60)
    message = r"(metrics|timings)\.jsonl: cannot be written \(File too large\); fix the cause"
    with file_size_limit(9000), pytest.raises(SaveError, match=message):
        fit(config, tmp_path, one_device)
    fit(config, tmp_path, one_device)
    assert read_metrics(tmp_path)["step"].tolist() == list(range(1, 61))


def test_damaged_lines_of_the_metrics_are_removed(tmp_path, one_device, capsys):
    fit(tiny_config(train__steps=4), tmp_path, one_device)
    log = tmp_path / METRICS_FILE
    lines = log.read_bytes().splitlines()
    lines[1] = b"\xff" + lines[1][1:]
    log.write_bytes(b"\n".join(lines))
    assert read_metrics(tmp_path)["step"].tolist() == [1, 3, 4]
    fit(tiny_config(train__steps=6), tmp_path, one_device)
    assert f"warning: {log}: removed 1 damaged lines\n" in capsys.readouterr().err
    assert read_metrics(tmp_path)["step"].tolist() == [1, 3, 4, 5, 6]


def test_evaluate_names_the_checkpoint_it_falls_back_on_and_training_resumes_from_it(
    root, undisturbed, tmp_path, capsys, monkeypatch
):
    workdir, held = tmp_path / "w", []
    shutil.copytree(undisturbed, workdir)
    truncate(largest_file(workdir / "checkpoints/6"))
    assert cli.main(["evaluate", f"--workdir={workdir}"]) == 0
    captured = capsys.readouterr()
    assert "step 4" in captured.out
    assert captured.err.startswith(f"warning: {workdir}/checkpoints/6: damaged: ")
    assert captured.err.endswith("; using step 4 instead\n")

    def write_report(*arguments):
        held.append(is_locked(workdir))
        return write(*arguments)

    write = html.write_report
    monkeypatch.setattr(html, "write_report", write_report)
    assert cli.main(arguments(root, workdir)) == 0
    assert held == [True]
    captured = capsys.readouterr()
    assert "resuming at step 4 of 6" in captured.out
    assert captured.err.endswith(f"; using step 4 instead; moved to {workdir}/damaged/6-1\n")
    assert_same_results(workdir, undisturbed)


def is_locked(workdir):
    try:
        lock.check_free(workdir)
    except CheckpointError:
        return True
    return False


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_each_command_takes_the_lock_and_fingerprints_the_images_once(
    root, undisturbed, tmp_path, monkeypatch, verb
):
    """Also: `train` evaluates the state in memory and does not restore the checkpoint."""
    workdir, calls = tmp_path / "w", []
    command = arguments(root, workdir)
    if verb == "evaluate":
        shutil.copytree(undisturbed, workdir)
        command = ["evaluate", f"--workdir={workdir}"]
    for module, name in (
        (lock, "hold"),
        (run, "_fingerprint"),
        (checkpoint, "_restore"),
    ):
        original = getattr(module, name)

        def spy(*arguments, original=original, name=name):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(module, name, spy)
    assert cli.main(command) == 0
    expected = ["hold", "_fingerprint"] + ["_restore"] * (verb == "evaluate")
    assert calls == expected


def test_a_finished_run_is_evaluated_again_without_training(root, undisturbed, tmp_path, capsys):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    assert cli.main(arguments(root, workdir)) == 0
    assert "resuming at step 6 of 6" in capsys.readouterr().out
    assert_same_results(workdir, undisturbed)


def test_another_config_is_one_line(root, undisturbed, capsys):
    command = [*arguments(root, undisturbed), "--config.memory.items=4"]
    assert cli.main(command) == 2
    assert line_of(capsys).startswith("error: memory.items: is 4, but the run in ")
