"""Several processes that train one run, over loopback."""

import contextlib
import json
import signal
import socket
import threading

import jax
import numpy as np
import pytest

from daad_jax import cli, lock, scoring, sharding
from daad_jax.checkpoint import load_config
from daad_jax.training import METRICS_FILE, TENSORBOARD
from tests.data.test_folder import make_category
from tests.processes import REACH, child, names_in, wait_for
from tests.test_cli import train_args

STEPS = 8
VARIABLES = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
}
NOWHERE = {"event": "", "path": "", "count": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def two_processes(root, workdir, place=NOWHERE, elsewhere=None, flags=()):
    """Both, of which the second stays at a place until a line comes, or has a workdir elsewhere."""
    port = free_port()
    more = [
        f"--config.train.steps={STEPS}",
        "--config.train.checkpoint_every=5",
        "--config.train.log_every=1",
        "--config.data.calibration_fraction=0.2",
        *flags,
    ]
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(
                child(
                    REACH,
                    json.dumps(place if index else NOWHERE),
                    "line",
                    *train_args(
                        root,
                        elsewhere if index and elsewhere else workdir,
                        *more,
                        f"--distributed=127.0.0.1:{port},2,{index}",
                        setting="ae",
                    ),
                    **VARIABLES,
                )
            )
            for index in range(2)
        ]
        watchdog = threading.Timer(300, lambda: [process.kill() for process in both])
        watchdog.start()
        stack.callback(watchdog.cancel)
        yield both


def finish(root, workdir, *flags):
    with two_processes(root, workdir, flags=flags) as (first, second):
        outputs = [process.communicate() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    return [output for output, _ in outputs]


def state_of(workdir):
    mesh = sharding.make_mesh(jax.devices()[:1])
    return jax.device_get(scoring.restore_state(workdir, load_config(workdir), mesh))


# Both learn of the signal between dispatches; with two steps in one that is after step 5, where a
# checkpoint ends the next.
@pytest.mark.parametrize(("at_once", "last"), [(1, 4), pytest.param(2, 5, marks=pytest.mark.slow)])
def test_a_signal_to_one_stops_both_after_the_same_step_and_both_go_on(
    root, tmp_path, at_once, last
):
    flags = [f"--config.train.steps_per_dispatch={at_once}"]
    # The images stay on the devices here, and are read ahead in what is interrupted.
    outputs = finish(root, tmp_path / "whole", "--config.data.on_device=yes", *flags)
    assert "report: " in outputs[0]
    assert [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")] == []
    place = {"event": "before", "path": 3, "count": 1}
    workdir = tmp_path / "parts"
    with two_processes(root, workdir, place, flags=flags) as (first, second):
        wait_for(second, "reached")
        second.send_signal(signal.SIGTERM)
        assert second.stderr.readline().startswith("SIGTERM: finishing what runs")
        errors = [second.communicate("\n")[1], first.communicate()[1]]
        assert (first.returncode, second.returncode) == (75, 75)
    where = f"at step {last} of 8, which is saved; the same command goes on\n"
    assert errors == [
        f"interrupted by SIGTERM {where}",
        f"interrupted by a signal to another process {where}",
    ]
    assert names_in(workdir / "checkpoints") == [str(last)]
    steps = [json.loads(line)["step"] for line in (workdir / METRICS_FILE).open()]
    assert steps == list(range(1, last + 1))
    assert len(names_in(workdir / TENSORBOARD)) == 1
    assert f"resuming at step {last} of 8" in finish(root, workdir, *flags)[0]
    for name in (METRICS_FILE, "scores.csv", "evaluation.json", "reference.npz"):
        assert (workdir / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    states = state_of(workdir), state_of(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_a_signal_before_the_first_step_stops_both(root, tmp_path):
    place = {"event": "open", "path": r"train/good/000", "count": 1}
    with two_processes(root, tmp_path, place) as (first, second):
        wait_for(second, "reached")
        second.send_signal(signal.SIGTERM)
        assert second.stderr.readline().startswith("SIGTERM: finishing what runs")
        errors = [second.communicate("\n")[1], first.communicate()[1]]
    assert (first.returncode, second.returncode) == (75, 75)
    assert all(" at step 1 of 8, which is saved;" in error for error in errors)


@pytest.mark.slow
def test_where_the_first_cannot_begin_the_other_ends_too(root, tmp_path):
    place = {"event": "open", "path": r"train/good/000", "count": 1}
    with two_processes(root, tmp_path, place) as (first, second):
        wait_for(second, "reached")  # after the early check of the lock
        with lock.hold(tmp_path):
            second.communicate("\n")
            error = first.communicate()[1]
    assert (first.returncode, second.returncode) == (2, 2)
    assert "another train.py, eval.py or grid is at work there" in error


@pytest.mark.slow
def test_a_process_that_does_not_see_the_workdir_says_so(root, tmp_path):
    with two_processes(root, tmp_path / "w", elsewhere=tmp_path / "v") as (first, second):
        error = second.communicate()[1]
        first.kill()
    assert second.returncode == 2
    assert error.startswith(f"error: {tmp_path}/v")
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["nowhere", "127.0.0.1:1,2,x", "127.0.0.1:1,2,5"])
def test_what_cannot_be_joined_is_one_line(root, tmp_path, text, capsys):
    args = train_args(root, tmp_path / "w", f"--distributed={text}")
    assert cli.run(cli.train_main, args) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --distributed: '{text}' cannot be joined (")
    assert error.count("\n") == 1
