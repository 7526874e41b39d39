"""SIGTERM and SIGINT: the first stops a command where it can be resumed, the second kills it."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from daad_jax import api, cli
from daad_jax.runtime import signals
from daad_jax.workdir import manifest
from tests.conftest import tiny_config, tiny_dataset
from tests.data.test_folder import make_category
from tests.processes import (
    COMMAND,
    LIMIT,
    ROOT,
    child,
    config_args,
    files_of,
    names_in,
    reaching,
    train_args,
    wait_for,
)

RESUME = "; re-run the same command to resume\n"
# A verb "compile" that compiles a program of argv[1] steps, which takes a while.
COMPILE = """
import sys, types
import jax, jax.numpy as jnp
from daad_jax import cli
from daad_jax.runtime import signals
def run(argv):
    def slow(x):
        for i in range(int(sys.argv[1])):
            x = jnp.sin(x @ x + i)
        return x
    lowered = jax.jit(slow).lower(jnp.ones((3, 3)))
    print("compiling", flush=True)
    lowered.compile()
    signals.check()
    print("compiled", flush=True)
cli.VERBS["compile"] = "compiles"
sys.modules["daad_jax.cli.compile"] = types.SimpleNamespace(run=run)
sys.exit(cli.main(["compile"]))
"""
# Prints "bootstrap" when a bootstrap interval is computed.
BOOTSTRAP = """
import sys
from daad_jax.evaluation import metrics
bootstrap = metrics.bootstrap_auroc
def announced(*arguments, **keywords):
    print("bootstrap", flush=True)
    return bootstrap(*arguments, **keywords)
metrics.bootstrap_auroc = announced
"""
SLOW = pytest.mark.slow
BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


def arguments(root, workdir):
    return train_args(root, workdir, "--config.train.steps=6", "--config.train.checkpoint_every=4")


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "w"
    assert cli.main(arguments(root, workdir)) == 0
    return workdir


def assert_acknowledged(process, number):
    """Waits for the message that acknowledges a signal at once."""
    name = signal.Signals(number).name
    line = process.stderr.readline()
    assert line == f"{name}: stopping at the next safe point; send it again to quit at once\n"


def interrupt(process, number, then="\n"):
    """Sends a signal to a waiting process, lets it continue and returns the rest of its stderr."""
    wait_for(process, "reached")
    process.send_signal(number)
    assert_acknowledged(process, number)
    with contextlib.suppress(BrokenPipeError):  # it has ended already
        process.stdin.write(then)
        process.stdin.close()
    # Not communicate(): it would miss what came in one piece with the acknowledgment.
    error = process.stderr.read()
    process.wait()
    return error


def metrics_steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]


def assert_resumes(root, workdir, undisturbed):
    assert cli.main(arguments(root, workdir)) == 0
    for name in ("metrics.jsonl", "evaluation.json", "scores.csv", "reference.npz"):
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes()
    assert manifest.check(workdir / "checkpoints/6")


@BOTH
def test_a_signal_stops_after_the_current_step_which_is_saved_and_can_be_resumed(
    root, undisturbed, tmp_path, number, capsys
):
    with reaching("before", 3, arguments(root, tmp_path)) as process:
        error = interrupt(process, number)
    name = signal.Signals(number).name
    assert error == (f"interrupted by {name} at step 3 of 6, which is saved{RESUME}")
    assert process.returncode == 75
    assert names_in(tmp_path / "checkpoints") == ["3"]
    assert manifest.check(tmp_path / "checkpoints/3")
    assert metrics_steps(tmp_path) == [1, 2, 3]
    assert_resumes(root, tmp_path, undisturbed)
    assert "resuming at step 3 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=SLOW), signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(root, undisturbed, tmp_path, number):
    with reaching("before", 6, arguments(root, tmp_path)) as process:
        wait_for(process, "reached")
        process.send_signal(signal.SIGTERM)
        assert_acknowledged(process, signal.SIGTERM)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert_resumes(root, tmp_path, undisturbed)


def test_a_second_signal_ends_the_process_at_once_while_xla_compiles():
    with child(COMPILE, "3000") as process:
        wait_for(process, "compiling")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert_acknowledged(process, signal.SIGTERM)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        assert process.stdout.read() == ""


def test_a_first_signal_waits_for_the_compilation():
    with child(COMPILE, "100") as process:
        wait_for(process, "compiling")
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
        assert error.splitlines()[1:] == [f"interrupted by SIGTERM{RESUME}".strip()]
        assert process.returncode == 75


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "path"),
    [
        ("open", r"train/good/003\.png$"),
        pytest.param("open", r"/metrics\.jsonl$", marks=SLOW),
        ("open", r"\.reference\.npz\.partial$"),
        pytest.param("os.rename", r"/scores\.csv$", marks=SLOW),
        ("open", r"\.report\.html\.partial$"),
    ],
)
def test_a_signal_outside_of_the_steps_stops_at_once_and_leaves_files_intact(
    root, undisturbed, tmp_path, event, path
):
    workdir = tmp_path / "w"
    evaluating = "train/good" not in path and "metrics" not in path
    if evaluating:
        shutil.copytree(undisturbed, workdir)
    with reaching(event, path, arguments(root, workdir)) as process:
        error = interrupt(process, signal.SIGTERM)
    assert process.returncode == 75
    assert error.startswith("interrupted by SIGTERM")
    assert error.endswith(RESUME)
    assert error.count("\n") == 1
    assert workdir.exists() == ("train/good" not in path)
    assert ("at step 0 of 6;" in error) == ("metrics" in path)
    if evaluating:
        for name in ("reference.npz", "scores.csv", "evaluation.json", "report.html"):
            assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes()
    assert_resumes(root, workdir, undisturbed)


def test_a_signal_stops_a_long_bootstrap(root, undisturbed, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    command = [*arguments(root, workdir), "--config.score.bootstrap_samples=10000000"]
    with child(BOOTSTRAP + COMMAND, "", "", *command) as process:
        wait_for(process, "bootstrap")
        time.sleep(1.0)  # It takes minutes.
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    assert (workdir / "evaluation.json").read_bytes() == (
        undisturbed / "evaluation.json"
    ).read_bytes()


@pytest.mark.slow
def test_a_signal_during_evaluate_leaves_the_old_files(undisturbed, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    before = {path: (path.stat().st_ino, data) for path, data in files_of(workdir).items()}
    command = ["evaluate", f"--workdir={workdir}"]
    with reaching("open", r"checkpoints/6/manifest\.json$", command) as process:
        error = interrupt(process, signal.SIGINT)
    assert (process.returncode, error) == (75, f"interrupted by SIGINT{RESUME}")
    after = {path: (path.stat().st_ino, data) for path, data in files_of(workdir).items()}
    assert after == before  # not one was written anew
    assert cli.main(command) == 0
    assert {path: data for path, (_, data) in before.items()} == files_of(workdir)


@pytest.mark.slow
def test_a_signal_stops_a_grid_which_can_be_resumed(root, tmp_path):
    results = tmp_path / "g.jsonl"
    command = ["grid", f"--results={results}", "--seeds=4,5", *config_args(root)]
    command += ["--config.train.steps=3"]
    with reaching("before", 2, command) as process:
        error = interrupt(process, signal.SIGTERM)
    assert error == (f"interrupted by SIGTERM at step 2 of 3, which is saved{RESUME}")
    assert process.returncode == 75
    assert not results.exists()
    assert cli.main(command) == 0
    lines = [json.loads(line) for line in results.open()]
    assert [(line["seed"], line["cost"]["first_step"]) for line in lines] == [(4, 2), (5, 0)]


@pytest.mark.slow
def test_a_save_that_fails_after_a_signal_is_an_error(root, tmp_path):
    with reaching("before", 3, arguments(root, tmp_path), before=LIMIT) as process:
        error = interrupt(process, signal.SIGTERM)
    assert process.returncode == 1
    (line,) = error.splitlines()
    assert line.startswith(f"error: {tmp_path}/checkpoints/3: cannot be saved (")


@pytest.mark.parametrize("script", ["train.py", pytest.param("eval.py", marks=SLOW)])
def test_a_signal_during_the_imports_is_handled_after_them(script, tmp_path):
    with subprocess.Popen(
        [sys.executable, os.fspath(ROOT / script), f"--workdir={tmp_path / 'w'}"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("needs /proc")
        deadline = time.monotonic() + 60
        while blocked(status) == 0:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
    assert process.returncode == 75
    assert error.splitlines()[-1] == f"interrupted by SIGTERM{RESUME}".strip()
    assert not (tmp_path / "w").exists()


def blocked(status):
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("SigBlk"))
    return int(line.split()[1], 16)


# In this process.


def handlers():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd, *(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))


def define_verb(monkeypatch, run):
    """Adds a verb "test" that calls `run`."""
    monkeypatch.setitem(cli.VERBS, "test", "calls a function")
    monkeypatch.setitem(sys.modules, "daad_jax.cli.test", types.SimpleNamespace(run=run))


def test_a_command_restores_the_signal_handlers(monkeypatch, capsys):
    before, seen = handlers(), []

    def wait_for_signal(_):
        seen.append(handlers())
        with signals.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    define_verb(monkeypatch, wait_for_signal)
    assert cli.main(["test"]) == 75
    assert handlers() == before
    assert not {*seen[0]} & {*before}
    assert capsys.readouterr().err.endswith(f"interrupted by SIGTERM{RESUME}")
    define_verb(monkeypatch, lambda _: signals.check())
    assert cli.main(["test"]) == 0  # The earlier signal is forgotten.


def test_library_calls_do_not_handle_signals(tmp_path, one_device):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job ignores SIGINT.
    config, seen, before = tiny_config("ae", train__steps=1), [], handlers()

    def interrupt(line):
        seen.append(handlers())
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        api.fit(config, tiny_dataset(config), workdir=tmp_path, mesh=one_device, log=interrupt)
    assert seen == [before]


def test_a_command_in_a_thread_does_not_handle_signals(monkeypatch):
    before, seen = handlers(), []

    def look(_):
        seen.append(tuple(signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)))

    define_verb(monkeypatch, look)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, ["test"]).result() == 0
    assert seen == [before[1:]]


def test_held_signals_take_effect_after_the_release(monkeypatch):
    monkeypatch.setattr(signals._state, "received", "SIGTERM")
    monkeypatch.setattr(signals._state, "held", False)
    signals.hold()
    signals.check()
    assert signals.requested()
    signals.release()
    with pytest.raises(signals.Interrupted, match="SIGTERM at step 3"):
        signals.check(" at step 3")


def test_a_release_stops_processes_without_a_signal_of_their_own(monkeypatch):
    monkeypatch.setattr(signals._state, "received", None)
    monkeypatch.setattr(signals._state, "held", True)
    signals.release()
    with pytest.raises(signals.Interrupted, match="a signal to another process"):
        signals.check()
