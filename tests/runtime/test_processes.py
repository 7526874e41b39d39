"""Several processes that train one run, over loopback."""

import contextlib
import csv
import json
import signal
import socket
import time

import jax
import numpy as np
import pytest

from daad_jax import cli
from daad_jax.models.build import build_networks
from daad_jax.runtime import processes, sharding
from daad_jax.train.metrics_log import METRICS_FILE, TENSORBOARD
from daad_jax.train.state import restore_state
from daad_jax.workdir import lock
from daad_jax.workdir.run import load_config
from tests.data.test_folder import make_category
from tests.processes import COMMAND, NOWHERE, REACH, child, names_in, train_args, wait_for

STEPS = 8
VARIABLES = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
}


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
def two_processes(
    root,
    workdir,
    place=NOWHERE,
    *,
    waiting=1,
    elsewhere=None,
    flags=(),
    own_flags=((), ()),
    before="",
):
    """Starts both; one waits at a place for a line. The second may use another workdir.

    `before` is run first in both.
    """
    port = free_port()
    more = [
        f"--config.train.steps={STEPS}",
        "--config.train.checkpoint_every=5",
        "--config.data.calibration_fraction=0.2",
        *flags,
    ]
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(
                child(
                    before + REACH,
                    json.dumps(place if index == waiting else NOWHERE),
                    "line",
                    *train_args(
                        root,
                        elsewhere if index and elsewhere else workdir,
                        *more,
                        *own_flags[index],
                        f"--distributed=127.0.0.1:{port},2,{index}",
                    ),
                    **VARIABLES,
                )
            )
            for index in range(2)
        ]
        yield both


def finish(root, workdir, *flags):
    with two_processes(root, workdir, flags=flags) as (first, second):
        outputs = [process.communicate() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    return [output for output, _ in outputs]


def state_of(workdir):
    mesh = sharding.make_mesh(jax.devices()[:1])
    config = load_config(workdir)
    return jax.device_get(restore_state(workdir, config, build_networks(config), mesh))


def assert_acknowledged(process):
    assert process.stderr.readline().startswith("SIGTERM: stopping at the next safe point")


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_after_the_same_step_and_both_can_be_resumed(
    root, tmp_path
):
    # With images on the devices; the interrupted run reads them ahead instead.
    outputs = finish(root, tmp_path / "whole", "--config.data.on_device=yes")
    assert "report: " in outputs[0]
    assert [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")] == []
    place = {"event": "before", "path": 3, "count": 1}
    workdir = tmp_path / "parts"
    with two_processes(root, workdir, place) as (first, second):
        wait_for(second, "reached")
        second.send_signal(signal.SIGTERM)
        assert_acknowledged(second)
        errors = [second.communicate("\n")[1], first.communicate()[1]]
        assert (first.returncode, second.returncode) == (75, 75)
    where = "at step 4 of 8, which is saved; re-run the same command to resume\n"
    assert errors == [
        f"interrupted by SIGTERM {where}",
        f"interrupted by a signal to another process {where}",
    ]
    assert names_in(workdir / "checkpoints") == ["4"]
    steps = [json.loads(line)["step"] for line in (workdir / METRICS_FILE).open()]
    assert steps == [1, 2, 3, 4]
    assert len(names_in(workdir / TENSORBOARD)) == 1
    assert "resuming at step 4 of 8" in finish(root, workdir)[0]
    for name in (METRICS_FILE, "scores.csv", "evaluation.json", "reference.npz"):
        assert (workdir / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    states = state_of(workdir), state_of(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_two_processes_that_share_each_bank_train_like_one_and_any_mesh_restores_it(root, tmp_path):
    finish(root, tmp_path / "two", "--config.mesh.items=2")
    args = train_args(root, tmp_path / "one", f"--config.train.steps={STEPS}")
    assert cli.main([*args, "--config.data.calibration_fraction=0.2"]) == 0
    two, one = (state_of(tmp_path / name).generator.params for name in ("two", "one"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), two, one)
    scores = [(tmp_path / name / "scores.csv").read_text() for name in ("two", "one")]
    evaluated = cli.main(["evaluate", f"{tmp_path}/two", "--config.mesh.items=1"])
    assert evaluated == 0
    again = (tmp_path / "two" / "scores.csv").read_text()
    for first, second in ((again, scores[0]), (scores[0], scores[1])):
        np.testing.assert_allclose(column(first, "R"), column(second, "R"), rtol=5e-3)


def column(text, name):
    return [float(row[name]) for row in csv.DictReader(text.splitlines())]


@pytest.mark.slow
def test_a_run_of_which_one_process_is_killed_resumes_bitwise(root, tmp_path):
    flags = ("--config.mesh.items=2", "--config.train.checkpoint_every=3")
    finish(root, tmp_path / "whole", *flags)
    place = {"event": "before", "path": 7, "count": 1}
    with two_processes(root, tmp_path / "parts", place, flags=flags) as (first, second):
        wait_for(second, "reached")
        time.sleep(2)  # lets the first process end the save of step 6
        second.kill()
        first.communicate()
    assert first.returncode == 1
    assert "resuming at step" in finish(root, tmp_path / "parts", *flags)[0]
    for name in ("scores.csv", "evaluation.json", "reference.npz"):
        parts, whole = (tmp_path / run / name for run in ("parts", "whole"))
        assert parts.read_bytes() == whole.read_bytes()
    states = state_of(tmp_path / "parts"), state_of(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_two_processes_predict_the_rows_that_one_does(root, tmp_path):
    assert cli.main(train_args(root, tmp_path, "--config.train.steps=2")) == 0
    port, pictures = free_port(), root / "nut" / "test"
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(
                child(
                    "import sys" + COMMAND,
                    "",
                    "",
                    *("predict", tmp_path, pictures, f"--output={tmp_path}/two"),
                    f"--distributed=127.0.0.1:{port},2,{index}",
                    **VARIABLES,
                )
            )
            for index in range(2)
        ]
        outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert cli.main(["predict", f"{tmp_path}", f"{pictures}", f"--output={tmp_path}/one"]) == 0
    rows = [sorted((tmp_path / name / "predictions.csv").open()) for name in ("two", "one")]
    assert len(rows[0]) == len(rows[1])
    assert [row.split(",")[0] for row in rows[0]] == [row.split(",")[0] for row in rows[1]]
    assert names_in(tmp_path / "two") == names_in(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "lost"), [(signal.SIGKILL, 1), (signal.SIGSTOP, 1), (signal.SIGSTOP, 0)]
)
def test_a_process_that_dies_or_is_stopped_is_named_within_a_minute(root, tmp_path, number, lost):
    place = {"event": "before", "path": 3, "count": 1}
    with two_processes(root, tmp_path, place, waiting=lost) as both:
        wait_for(both[lost], "reached")
        both[lost].send_signal(number)
        begin = time.monotonic()
        error = both[1 - lost].communicate()[1]
        assert time.monotonic() - begin < 60
        both[lost].kill()
    assert f"error: process {lost} of 2 has not answered for 40 s" in error
    assert both[1 - lost].returncode == 1


@pytest.mark.slow
def test_a_signal_before_the_first_step_stops_both_processes(root, tmp_path):
    place = {"event": "open", "path": r"train/good/000", "count": 1}
    with two_processes(root, tmp_path, place) as (first, second):
        wait_for(second, "reached")
        second.send_signal(signal.SIGTERM)
        assert_acknowledged(second)
        errors = [second.communicate("\n")[1], first.communicate()[1]]
    assert (first.returncode, second.returncode) == (75, 75)
    assert all(" at step 1 of 8, which is saved;" in error for error in errors)


@pytest.mark.slow
def test_if_the_first_process_cannot_start_the_other_ends_with_its_exit_code(root, tmp_path):
    place = {"event": "open", "path": r"train/good/000", "count": 1}
    with two_processes(root, tmp_path, place, waiting=0) as (first, second):
        wait_for(first, "reached")  # after the first check of the lock
        with lock.hold(tmp_path):
            error = first.communicate("\n")[1]
        second.communicate()
    assert (first.returncode, second.returncode) == (2, 2)
    assert "another process trains or evaluates there" in error


@pytest.mark.slow
def test_a_process_that_cannot_see_the_workdir_reports_it(root, tmp_path):
    with two_processes(root, tmp_path / "w", elsewhere=tmp_path / "v") as (first, second):
        error = second.communicate()[1]
        first.kill()
    assert second.returncode == 2
    assert error.startswith(f"error: {tmp_path}/v")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_processes_with_different_configs_do_not_train(root, tmp_path):
    flags = (("--config.train.learning_rate=0.5",), ("--config.train.learning_rate=0.25",))
    with two_processes(root, tmp_path / "w", own_flags=flags) as (first, second):
        error = second.communicate()[1]
        first.communicate()
    assert second.returncode == 2
    assert "train.learning_rate: is 0.25, but 0.5 in the first process; start all" in error
    assert first.returncode == 1


BROKEN = """
import sys, time
from daad_jax.train import loop
def fail(*_):
    raise ValueError("broken")
if sys.argv[-1].endswith("1"):
    loop._loop = fail
"""


@pytest.mark.slow
def test_an_unexpected_error_in_one_process_ends_both(root, tmp_path):
    with two_processes(root, tmp_path / "w", before=BROKEN) as (first, second):
        begin = time.monotonic()
        errors = [process.communicate()[1] for process in (first, second)]
        assert time.monotonic() - begin < 150
    assert (first.returncode, second.returncode) == (1, 1)
    assert "ValueError: broken" in errors[1]
    assert "error: process 1 of 2 has not answered for 40 s" in errors[0]


@pytest.mark.slow
def test_a_signal_to_one_of_two_that_predict_ends_both(root, tmp_path):
    flags = ("--config.train.steps=2", "--config.data.calibration_fraction=0.2")
    assert cli.main(train_args(root, tmp_path, *flags)) == 0
    port, place = free_port(), {"event": "open", "path": r"predictions-1\.csv", "count": 1}
    with contextlib.ExitStack() as stack:
        first, second = [
            stack.enter_context(
                child(
                    REACH,
                    json.dumps(place if index else NOWHERE),
                    "line",
                    *("predict", tmp_path, root / "nut" / "test", f"--output={tmp_path}/two"),
                    f"--distributed=127.0.0.1:{port},2,{index}",
                    **VARIABLES,
                )
            )
            for index in range(2)
        ]
        wait_for(second, "reached")
        second.send_signal(signal.SIGTERM)
        assert_acknowledged(second)
        second.communicate("\n")
        first.communicate()
    assert (first.returncode, second.returncode) == (1, 75)


@pytest.mark.parametrize("text", ["nowhere", "127.0.0.1:1,2,x", "127.0.0.1:1,2,5"])
def test_a_failed_join_is_one_line(root, tmp_path, text, capsys):
    args = train_args(root, tmp_path / "w", f"--distributed={text}")
    assert cli.main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --distributed: cannot join '{text}' (")
    assert error.count("\n") == 1


def test_one_process_needs_no_communication(one_device):
    assert processes.is_first()
    assert processes.all_processes(True)
    assert not processes.all_processes(False)
    assert not processes.Stop(one_device)()
    with pytest.raises(KeyError):
        processes.in_first(lambda: {}["missing"])
