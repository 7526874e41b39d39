"""SIGTERM and SIGINT: the first ends the work where it can go on, the second ends it at once."""

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daad_jax import cli, grid, interruption, manifest
from daad_jax.training import train
from tests.conftest import tiny_config, tiny_dataset
from tests.data.test_folder import make_category
from tests.processes import REACH, ROOT, child, files_of, names_in, wait_for
from tests.test_cli import train_args
from tests.test_grid import grid_args

# JAX would warn that what it compiles cannot be kept.
LIMIT = """
import os, resource
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
"""
COMPILE = """
import sys
import jax, jax.numpy as jnp
from daad_jax import cli, interruption
def main(_):
    def slow(x):
        for i in range(int(sys.argv[1])):
            x = jnp.sin(x @ x + i)
        return x
    lowered = jax.jit(slow).lower(jnp.ones((3, 3)))
    print("compiling", flush=True)
    lowered.compile()
    interruption.check()
    print("compiled", flush=True)
sys.exit(cli.run(main, sys.argv))
"""
SLOW = pytest.mark.slow
BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


def arguments(root, workdir):
    more = ["--config.train.steps=6", "--config.train.checkpoint_every=4"]
    return train_args(root, workdir, *more, "--config.train.log_every=1", setting="ae")


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "w"
    assert cli.run(cli.train_main, arguments(root, workdir)) == 0
    return workdir


def reaching(event, path, command, before=""):
    place = json.dumps({"event": event, "path": path, "count": 1})
    return child(before + REACH, place, "line", *command)


def announced(process, number):
    """Waits for the line that is printed at once."""
    name = signal.Signals(number).name
    line = process.stderr.readline()
    assert line == f"{name}: finishing what runs; another signal ends it at once\n"


def interrupt(process, number, then="\n"):
    """Sends a signal where the process stays, lets it go on, and returns what it prints last."""
    wait_for(process, "reached")
    process.send_signal(number)
    announced(process, number)
    _, error = process.communicate(then)
    return error


def metrics_steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]


def assert_goes_on(root, workdir, undisturbed):
    assert cli.run(cli.train_main, arguments(root, workdir)) == 0
    for name in ("metrics.jsonl", "evaluation.json", "scores.csv", "reference.npz"):
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes()
    assert manifest.check(workdir / "checkpoints/6")


@BOTH
def test_a_signal_lets_the_step_finish_saves_it_and_the_command_goes_on(
    root, undisturbed, tmp_path, number, capsys
):
    with reaching("before", 3, arguments(root, tmp_path)) as process:
        error = interrupt(process, number)
    name = signal.Signals(number).name
    assert error == (
        f"interrupted by {name} at step 3 of 6, which is saved; the same command goes on\n"
    )
    assert process.returncode == 75
    assert names_in(tmp_path / "checkpoints") == ["3"]
    assert manifest.check(tmp_path / "checkpoints/3")
    assert metrics_steps(tmp_path) == [1, 2, 3]
    assert_goes_on(root, tmp_path, undisturbed)
    assert "resuming at step 3 of 6" in capsys.readouterr().out


def test_a_signal_waits_for_all_steps_of_a_dispatch(root, tmp_path, capsys):
    command = [*arguments(root, tmp_path), "--config.train.steps_per_dispatch=2"]
    with reaching("before", 1, command) as process:
        error = interrupt(process, signal.SIGTERM)
    assert error == (
        "interrupted by SIGTERM at step 2 of 6, which is saved; the same command goes on\n"
    )
    assert process.returncode == 75
    assert metrics_steps(tmp_path) == [1, 2]
    assert cli.run(cli.train_main, command) == 0
    assert "resuming at step 2 of 6" in capsys.readouterr().out
    assert metrics_steps(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=SLOW), signal.SIGINT])
def test_a_second_signal_leaves_at_once(root, undisturbed, tmp_path, number):
    with reaching("before", 6, arguments(root, tmp_path)) as process:
        wait_for(process, "reached")
        process.send_signal(signal.SIGTERM)
        announced(process, signal.SIGTERM)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert_goes_on(root, tmp_path, undisturbed)


def test_a_second_signal_leaves_at_once_while_xla_compiles():
    with child(COMPILE, "3000") as process:
        wait_for(process, "compiling")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        announced(process, signal.SIGTERM)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        assert process.stdout.read() == ""


def test_a_first_signal_waits_for_the_compilation():
    with child(COMPILE, "100") as process:
        wait_for(process, "compiling")
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
        assert error.splitlines()[1:] == ["interrupted by SIGTERM; the same command goes on"]
        assert process.returncode == 75


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
def test_outside_of_the_steps_a_signal_stops_there_and_spoils_nothing(
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
    assert error.endswith("; the same command goes on\n")
    assert error.count("\n") == 1
    assert workdir.exists() == ("train/good" not in path)
    assert ("at step 0 of 6;" in error) == ("metrics" in path)
    if evaluating:
        for name in ("reference.npz", "scores.csv", "evaluation.json", "report.html"):
            assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes()
    assert_goes_on(root, workdir, undisturbed)


def test_a_signal_ends_a_long_bootstrap(root, undisturbed, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    command = [*arguments(root, workdir), "--config.score.bootstrap_samples=10000000"]
    with reaching("os.rename", r"/reference\.npz$", command) as process:
        wait_for(process, "reached")
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(1.0)  # The bootstrap has begun; each of its intervals would take minutes.
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    assert (workdir / "evaluation.json").read_bytes() == (
        undisturbed / "evaluation.json"
    ).read_bytes()


def test_eval_stops_and_leaves_the_old_files(undisturbed, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    before = {path: (path.stat().st_ino, data) for path, data in files_of(workdir).items()}
    command = ["eval.py", f"--workdir={workdir}"]
    with reaching("open", r"checkpoints/6/manifest\.json$", command) as process:
        error = interrupt(process, signal.SIGINT)
    assert (process.returncode, error) == (75, "interrupted by SIGINT; the same command goes on\n")
    after = {path: (path.stat().st_ino, data) for path, data in files_of(workdir).items()}
    assert after == before  # not one was written anew
    assert cli.run(cli.eval_main, command) == 0
    assert {path: data for path, (_, data) in before.items()} == files_of(workdir)


def test_a_grid_ends_with_the_run_that_goes_on(root, tmp_path):
    results = tmp_path / "g.jsonl"
    command = grid_args(root, results, "--config.data.category=nut", "--seeds=4,5")
    with reaching("before", 2, command) as process:
        error = interrupt(process, signal.SIGTERM)
    assert error == (
        "interrupted by SIGTERM at step 2 of 3, which is saved; the same command goes on\n"
    )
    assert process.returncode == 75
    assert not results.exists()
    assert cli.run(grid.main, command) == 0
    lines = [json.loads(line) for line in results.open()]
    assert [(line["seed"], line["cost"]["first_step"]) for line in lines] == [(4, 2), (5, 0)]


def test_a_save_that_fails_on_a_signal_is_an_error(root, tmp_path):
    with reaching("before", 3, arguments(root, tmp_path), before=LIMIT) as process:
        error = interrupt(process, signal.SIGTERM)
    assert process.returncode == 1
    assert error.splitlines()[-1].startswith(f"error: {tmp_path}/checkpoints/3: cannot be saved (")


@pytest.mark.parametrize("script", ["train.py", pytest.param("eval.py", marks=SLOW)])
def test_a_signal_while_python_imports_is_not_lost(script, tmp_path):
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
    assert error.splitlines()[-1] == "interrupted by SIGTERM; the same command goes on"
    assert not (tmp_path / "w").exists()


def blocked(status):
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("SigBlk"))
    return int(line.split()[1], 16)


# In the caller's own process.


def handlers():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd, *(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))


def test_a_command_gives_the_handlers_back(capsys):
    before, seen = handlers(), []

    def main(_):
        seen.append(handlers())
        with interruption.anywhere():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    assert cli.run(main, []) == 75
    assert handlers() == before
    assert not {*seen[0]} & {*before}
    error = capsys.readouterr().err
    assert error.endswith("interrupted by SIGTERM; the same command goes on\n")
    assert cli.run(lambda _: interruption.check(), []) == 0  # the signal before is forgotten


def test_library_calls_leave_signals_alone(tmp_path, one_device):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A job in the background ignores it.
    config, seen, before = tiny_config("ae", train__steps=1), [], handlers()

    def look(line):
        seen.append(handlers())
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=look)
    assert seen == [before]


def test_a_command_in_a_thread_leaves_signals_alone():
    before, seen = handlers(), []

    def main(_):
        seen.append(tuple(signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.run, main, []).result() == 0
    assert seen == [before[1:]]
