"""What a run survives: kills, full disks, damaged files, edited configs, a second process.

`docs/reliability.md` lists the promises and which of these tests keeps each.
"""

import asyncio
import concurrent.futures
import contextlib
import csv
import errno
import fcntl
import gc
import json
import os
import re
import resource
import shutil
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import daad_jax
from daad_jax import cli, html_report, lock, manifest
from daad_jax.checkpoint import Checkpoints
from daad_jax.errors import CheckpointError, SaveError
from daad_jax.evaluation import evaluate
from daad_jax.state import NetworkState, TrainState
from daad_jax.training import read_metrics, train
from tests.conftest import tiny_config, tiny_dataset
from tests.data.test_folder import make_category
from tests.processes import PAUSE, ROOT, TRAIN, child, files_of, kill, names_in, wait_for
from tests.test_cli import train_args

FORMAT_1 = Path(__file__).parent / "fixtures" / "checkpoint_format_1"

SAVE = """
from pathlib import Path
import jax
import jax.numpy as jnp
from daad_jax.checkpoint import Checkpoints
from daad_jax.state import NetworkState, TrainState
with Checkpoints(Path(sys.argv[3]), 1) as checkpoints:
    for step in (2, 4):
        weights = jax.random.normal(jax.random.key(step), (50, 40))
        checkpoints.save(TrainState(jnp.int32(step), NetworkState({"w": weights}, {}, {}), None))
"""
RESTORE = """
from pathlib import Path
from daad_jax.checkpoint import Checkpoints
from tests.test_reliability import shapes
with Checkpoints(Path(sys.argv[3])) as checkpoints:
    print("restored", checkpoints.restore(shapes()).step, flush=True)
"""
# JAX would warn that what it compiles cannot be kept.
LIMIT = """
import os, resource, sys
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
"""


def state(step, shape=(50, 40)):
    weights = jax.random.normal(jax.random.key(step), shape)  # cannot be compressed
    return TrainState(jnp.int32(step), NetworkState({"w": weights}, {}, {}), None)


def shapes(shape=(50, 40)):
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), state(0, shape)
    )


def save(workdir, *steps, keep=2):
    with Checkpoints(workdir, keep) as checkpoints:
        for step in steps:
            checkpoints.save(state(step))


def restore(workdir, keep=None, **kwargs):
    with Checkpoints(workdir, keep) as checkpoints:
        restored = checkpoints.restore(shapes(**kwargs))
    step = int(restored.step)
    np.testing.assert_array_equal(restored.generator.params["w"], state(step).generator.params["w"])
    return step


def largest(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: len(p.read_bytes())
    )


def quiet(_):
    pass


def remove(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def change(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lead_out(path):
    path.unlink()
    path.symlink_to("/dev/zero")  # which never ends


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE = [
    (remove, "is missing"),
    (truncate, "bytes instead of"),
    (change, "differs from what was"),
    (lead_out, "leads out of the checkpoint"),
    (make_pipe, "is not a regular file"),
]


def line_of(capsys):
    """The only line on stderr."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


# A save that is cut short.

PHASES = [
    ("open", r"/4\.orbax-checkpoint-tmp.*/_METADATA$", 2),  # the arrays are being written
    ("os.rename", r"checkpoints/4$", 2),  # all is written, nothing committed
    ("shutil.rmtree", r"checkpoints/2$", 4),  # committed, the old one not yet removed
    ("os.rename", r"4/manifest\.json$", 4),  # committed, the manifest not in place
]


def test_sigkill_at_any_point_of_a_save_leaves_a_sound_checkpoint(tmp_path):
    folders = [tmp_path / str(index) for index in range(len(PHASES))]
    with contextlib.ExitStack() as stack:
        saving = [
            stack.enter_context(child(PAUSE + SAVE, event, path, folder))
            for (event, path, _), folder in zip(PHASES, folders, strict=True)
        ]
        for process in saving:
            wait_for(process, "paused")
            kill(process)
    for folder, (*_, step) in zip(folders, PHASES, strict=True):
        assert restore(folder) == step
        save(folder, 6, keep=1)
        assert names_in(folder / "checkpoints") == ["6"]
        assert restore(folder) == 6


def test_each_checkpoint_gets_its_manifest_as_soon_as_it_is_done(tmp_path):
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.save(state(2))
        assert manifest.check(tmp_path / "checkpoints/1")
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoints/2/manifest.json").exists():
            assert time.monotonic() < deadline
            checkpoints.check()
        checkpoints.save(state(3))
    assert names_in(tmp_path / "checkpoints") == ["2", "3"]
    assert manifest.check(tmp_path / "checkpoints/3")


# Files that are not what was saved.


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_to_any_file_is_found(tmp_path, damage, message):
    save(tmp_path / "w", 1)
    files = [path for path in files_of(tmp_path / "w") if path.name != manifest.MANIFEST_FILE]
    assert len(files) >= 8
    for path in files:
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "w/checkpoints/1", copy)
        name = path.relative_to(tmp_path / "w/checkpoints/1")
        damage(copy / name)
        with pytest.raises(manifest.DamagedError, match=f"^{name}.* {message}"):
            manifest.check(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_and_saved_again(tmp_path, damage, message, capsys):
    save(tmp_path, 2, 4)
    damage(largest(tmp_path / "checkpoints/4"))
    before = files_of(tmp_path)
    assert restore(tmp_path) == 2
    warning = line_of(capsys)
    assert warning.startswith(f"warning: {tmp_path}/checkpoints/4: default/")
    assert message in warning
    assert "step 2 is used instead" in warning
    assert files_of(tmp_path) == before  # who only reads changes nothing
    for count in (1, 2):
        assert restore(tmp_path, keep=2) == 2
        assert f"moved to {tmp_path}/damaged/4-{count}" in line_of(capsys)
        save(tmp_path, 4)
        assert restore(tmp_path) == 4
        damage(largest(tmp_path / "checkpoints/4"))
    assert names_in(tmp_path / "damaged") == ["4-1", "4-2"]


def test_without_a_sound_checkpoint_the_workdir_is_named_and_left(tmp_path):
    save(tmp_path, 2, 4)
    remove(largest(tmp_path / "checkpoints/2"))
    (tmp_path / "checkpoints/4/manifest.json").write_text("{")
    before = files_of(tmp_path)
    message = (
        rf"{tmp_path}: no checkpoint is sound \(4: manifest.json cannot be read; 2: .* is missing"
    )
    with pytest.raises(CheckpointError, match=message + ".*restore one from a copy, or remove"):
        restore(tmp_path, keep=2)
    assert files_of(tmp_path) == before


def test_a_checkpoint_without_a_manifest_is_tried(tmp_path, capsys):
    save(tmp_path, 2, 4)
    remove(tmp_path / "checkpoints/4/manifest.json")
    assert restore(tmp_path) == 4
    assert capsys.readouterr().err == ""
    for path in files_of(tmp_path / "checkpoints/4"):
        path.write_bytes(path.read_bytes()[:3])
    assert restore(tmp_path, keep=2) == 2
    assert "checkpoints/4: " in line_of(capsys)


def test_a_checkpoint_without_a_manifest_and_of_other_shapes_is_damaged(tmp_path, capsys):
    save(tmp_path, 2)
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(state(4, (3, 4)))
    remove(tmp_path / "checkpoints/4/manifest.json")
    assert restore(tmp_path) == 2
    assert "generator/params/w is of shape (3, 4) in the checkpoint" in line_of(capsys)


def test_a_checkpoint_that_is_whole_and_cannot_be_restored_is_an_error(tmp_path, capsys):
    save(tmp_path, 2, 4)
    for path in files_of(tmp_path / "checkpoints/4/default/ocdbt.process_0"):
        path.write_bytes(b"?")
    manifest.write(tmp_path / "checkpoints/4")  # as if it had been saved so
    before = files_of(tmp_path)
    message = r"checkpoints/4: is whole, but cannot be restored \(.*\); free memory, or install"
    with pytest.raises(CheckpointError, match=message) as caught:
        restore(tmp_path, keep=2)
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path) == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", [r"checkpoints/2/manifest.json$", r"checkpoints/2/default/"])
def test_who_reads_a_checkpoint_that_is_removed_takes_the_newest(tmp_path, path):
    save(tmp_path, 2, keep=1)
    pause_once = PAUSE.replace("threading.Event().wait()", "sys.stdin.readline()")
    with child(pause_once + RESTORE, "open", path, tmp_path) as process:
        wait_for(process, "paused")
        save(tmp_path, 4, 6, keep=1)
        output, error = process.communicate("\n" * 100)
    assert output.splitlines()[-1:] == ["restored 6"]
    assert error == ""


# A disk that is full.


@contextlib.contextmanager
def file_size_limit(size):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def save_on_a_full_disk(workdir, then):
    with file_size_limit(4096), Checkpoints(workdir, 1) as checkpoints:
        checkpoints.save(state(4))
        then(checkpoints)


def fail_at_check(checkpoints):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        checkpoints.check()


def fail_at_save(checkpoints):
    checkpoints.save(state(6))


def fail_at_exit(checkpoints):
    pass


def test_a_disk_that_metrics_fill_is_named(tmp_path, one_device):
    config = tiny_config(train__steps=4)
    train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    config = tiny_config(train__steps=60)
    message = (
        r"(metrics|timings)\.jsonl: cannot be written \(File too large\); .* goes on from the last"
    )
    with file_size_limit(9000), pytest.raises(SaveError, match=message):
        train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    assert read_metrics(tmp_path)["step"].tolist() == list(range(1, 61))


def test_damaged_lines_of_a_log_are_left_out_with_a_warning(tmp_path, one_device, capsys):
    config = tiny_config(train__steps=4)
    train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    log = tmp_path / "metrics.jsonl"
    lines = log.read_bytes().splitlines()
    lines[1] = b"\xff" + lines[1][1:]
    log.write_bytes(b"\n".join(lines))  # and the last one without its end
    config = tiny_config(train__steps=6)
    assert read_metrics(tmp_path)["step"].tolist() == [1, 3, 4]
    train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    assert f"warning: {log}: 1 damaged lines are left out\n" in capsys.readouterr().err
    assert read_metrics(tmp_path)["step"].tolist() == [1, 3, 4, 5, 6]


@pytest.mark.parametrize("content", ["[]", "{", "{}", "3"])
def test_a_damaged_list_of_images_is_named(tmp_path, one_device, content):
    config = tiny_config(train__steps=2)
    train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"images.json: cannot be read; restore it"):
        train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)


@pytest.mark.parametrize("fail", [fail_at_check, fail_at_save, fail_at_exit])
def test_a_failed_save_surfaces_and_the_one_before_stays(tmp_path, fail):
    save(tmp_path, 2)
    before = files_of(tmp_path)
    message = "checkpoints/4: cannot be saved .*(F|f)ile too large.*goes on from step 2"
    with pytest.raises(SaveError, match=message) as caught:
        save_on_a_full_disk(tmp_path, fail)
    assert "\n" not in str(caught.value)
    assert before.items() <= files_of(tmp_path).items()
    assert restore(tmp_path) == 2
    save(tmp_path, 4, keep=1)
    assert restore(tmp_path) == 4


def test_a_failed_save_does_not_hide_why_the_work_stopped(tmp_path, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_on_a_full_disk(tmp_path, interrupt)
    assert "checkpoints/4: cannot be saved" in line_of(capsys)


def test_nothing_else_is_printed_of_a_failed_save(tmp_path, monkeypatch, caplog, recwarn):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    many = NetworkState({str(i): state(i).generator.params["w"] for i in range(80)}, {}, {})
    for _ in range(3):
        with (
            pytest.raises(SaveError),
            file_size_limit(4096),
            Checkpoints(tmp_path, 1) as checkpoints,
        ):
            checkpoints.save(TrainState(jnp.int32(1), many, None))
    loop = asyncio.new_event_loop()
    path = tmp_path / "checkpoints/1.orbax-checkpoint-tmp/default"
    loop.create_future().set_exception(ValueError(f"Failed writing: {path}"))  # of no trace
    loop.close()
    gc.collect()
    assert not seen
    assert not caplog.records
    assert not recwarn


def test_a_failed_save_stops_training_before_the_next_one(tmp_path, one_device):
    config = tiny_config("ae", train__steps=1000, train__checkpoint_every=500, train__log_every=50)
    with pytest.raises(SaveError), file_size_limit(10_000):
        train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=lambda _: None)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert 500 <= steps[-1] < 1000


# Whole runs.


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


def arguments(root, workdir, steps=6):
    more = [f"--config.train.steps={steps}", "--config.train.checkpoint_every=2"]
    return train_args(root, workdir, *more, "--config.train.log_every=1", setting="ae")


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    """A finished run with checkpoints at steps 4 and 6."""
    workdir = tmp_path_factory.mktemp("runs") / "w"
    assert cli.run(cli.train_main, arguments(root, workdir)) == 0
    return workdir


def assert_same_run(workdir, undisturbed):
    for name in ("metrics.jsonl", "evaluation.json", "scores.csv"):
        assert (workdir / name).read_text() == (undisturbed / name).read_text()


def assert_refused(workdir, capsys):
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {workdir}: another train.py, eval.py or grid is at")
    assert captured.err.count("\n") == 1
    assert captured.out == ""  # at once: no data was loaded


def test_a_run_keeps_others_out_until_it_is_killed_in_a_save_and_then_goes_on(
    root, undisturbed, tmp_path, capsys
):
    workdir = tmp_path / "w"
    pause = (PAUSE + TRAIN, "os.rename", r"checkpoints/4$")
    with child(*pause, *arguments(root, workdir)) as process:
        wait_for(process, "paused")
        before = files_of(workdir)
        assert cli.run(cli.train_main, arguments(root, workdir)) == 2
        assert_refused(workdir, capsys)
        root.rename(root.with_name("away"))  # It is refused before the data would be loaded.
        assert cli.run(cli.eval_main, ["eval.py", f"--workdir={workdir}"]) == 2
        root.with_name("away").rename(root)
        assert_refused(workdir, capsys)
        assert daad_jax.load(workdir).score([np.zeros((16, 16), np.uint8)])
        assert files_of(workdir) == before
        kill(process)
    assert cli.run(cli.train_main, arguments(root, workdir)) == 0
    assert "resuming at step 2 of 6" in capsys.readouterr().out
    assert names_in(workdir / "checkpoints") == ["4", "6"]
    assert_same_run(workdir, undisturbed)


def test_a_full_disk_ends_training_with_one_line(root, undisturbed, tmp_path, capsys):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    before = files_of(workdir / "checkpoints")
    with child(LIMIT + TRAIN, "", "", *arguments(root, workdir, steps=8)) as process:
        _, error = process.communicate()
    assert process.returncode == 1
    assert error.count("\n") == 1
    assert error.startswith(f"error: {workdir}/checkpoints/8: cannot be saved (")
    assert error.endswith("the same command goes on from step 6\n")
    assert before.items() <= files_of(workdir / "checkpoints").items()
    assert cli.run(cli.train_main, arguments(root, workdir, steps=8)) == 0
    assert "resuming at step 6 of 8" in capsys.readouterr().out
    assert names_in(workdir / "checkpoints") == ["6", "8"]


def test_eval_says_which_checkpoint_it_falls_back_on_and_training_goes_on_from_there(
    root, undisturbed, tmp_path, capsys, monkeypatch
):
    workdir, held = tmp_path / "w", []
    shutil.copytree(undisturbed, workdir)
    truncate(largest(workdir / "checkpoints/6"))
    assert cli.run(cli.eval_main, ["eval.py", f"--workdir={workdir}"]) == 0
    captured = capsys.readouterr()
    assert "step 4" in captured.out
    assert captured.err.startswith(f"warning: {workdir}/checkpoints/6: default/")
    assert captured.err.endswith("; step 4 is used instead\n")
    write = html_report.write_report
    monkeypatch.setattr(
        html_report, "write_report", lambda *a: held.append(held_by_another(workdir)) or write(*a)
    )
    assert cli.run(cli.train_main, arguments(root, workdir)) == 0
    assert held == [True]
    captured = capsys.readouterr()
    assert "resuming at step 4 of 6" in captured.out
    assert captured.err.endswith(f"; step 4 is used instead; moved to {workdir}/damaged/6-1\n")
    assert_same_run(workdir, undisturbed)


# Checkpoints of other versions and other configs.


@pytest.fixture
def format_1(tmp_path):
    return shutil.copytree(FORMAT_1, tmp_path / "w")


def test_the_first_format_is_read_and_scores_as_it_did(format_1):
    before = files_of(format_1)
    detector = daad_jax.load(format_1)
    result = detector.score(tiny_dataset(detector.config).test.images)
    found = {
        "R": result.reconstruction_score,
        "L": result.alignment_score,
        "A_calibrated": result.anomaly_score,
        **result.localized_scores,
    }
    with (format_1 / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {*rows[0]} == {"image", "kind", "label", "A", "called_defective", *found}
    for name, values in found.items():
        np.testing.assert_allclose(values, [float(row[name]) for row in rows], rtol=1e-4)
    called = found["A_calibrated"] >= detector.threshold
    assert [str(int(one)) for one in called] == [row["called_defective"] for row in rows]
    assert manifest.check(format_1 / "checkpoints/30")
    assert json.loads((format_1 / "checkpoints/30/manifest.json").read_text())["format"] == 1
    assert files_of(format_1) == before


def test_a_newer_format_is_refused(format_1):
    path = format_1 / "checkpoints/30/manifest.json"
    path.write_text(json.dumps({"format": 2, "contents": []}))
    message = r"manifest.json: has format 2, and this daad_jax knows formats up to 1; update"
    with pytest.raises(CheckpointError, match=message):
        daad_jax.load(format_1)


EDITS = [
    ("memory", "items", 5, "generator/params/memory_1/memory_items", "(4, 64)", "(5, 64)"),
    ("model", "widths", [6], "generator/params/decoder_1/kernel", "(4, 4, 4, 1)", "(4, 4, 6, 1)"),
]


@pytest.mark.parametrize(("group", "field", "value", "name", "old", "new"), EDITS)
def test_an_edited_config_is_told_by_the_first_parameter(
    format_1, capsys, group, field, value, name, old, new
):
    config = json.loads((format_1 / "config.json").read_text())
    config[group][field] = value
    (format_1 / "config.json").write_text(json.dumps(config))
    before = files_of(format_1)
    with pytest.raises(CheckpointError) as caught:
        daad_jax.load(format_1)
    message = str(caught.value)
    assert message.startswith(f"{format_1}/checkpoints/30: {name}")
    assert f"of shape {old} in the checkpoint and of shape {new} by config.json" in message
    assert "\n" not in message
    assert files_of(format_1) == before
    assert capsys.readouterr().err == ""


def test_a_part_that_the_checkpoint_lacks_is_named(format_1):
    config = json.loads((format_1 / "config.json").read_text())
    config["train"]["average_decay"] = 0.0
    (format_1 / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"30: average/.* in the checkpoint and missing by"):
        daad_jax.load(format_1)


# Two at once.


def held_by_another(workdir):
    """Whether another thread, which is like another process to the lock, is refused."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(lock.check_free, workdir).result()
        except CheckpointError:
            return True
    return False


def test_a_workdir_is_held_while_it_is_trained_and_not_afterwards(tmp_path, one_device):
    config = tiny_config("ae", train__steps=1)
    dataset, seen = tiny_dataset(config), []
    for _ in range(2):
        train(
            config,
            dataset,
            tmp_path,
            mesh=one_device,
            log=lambda line: seen.append((line.split()[0], held_by_another(tmp_path))),
        )
        assert not held_by_another(tmp_path)
    assert seen[-1] == ("resuming", True)
    assert lock.LOCK_FILE in names_in(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, lock.hold(tmp_path):
        with pytest.raises(CheckpointError, match="another train.py, eval.py or grid is at work"):
            pool.submit(evaluate, tmp_path, dataset).result()
        evaluate(tmp_path, dataset, mesh=one_device)  # who holds it may


def test_a_held_workdir_is_refused_without_waiting(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool, lock.hold(tmp_path):
        waiting = pool.submit(lock.check_free, tmp_path)
        with pytest.raises(CheckpointError, match="another train.py, eval.py or grid is at work"):
            waiting.result(timeout=20)


def test_a_run_that_another_began_meanwhile_is_left_alone(tmp_path, one_device):
    first, second = tiny_config("ae", train__steps=1), tiny_config("ae", train__steps=1, seed=7)
    dataset = tiny_dataset(first)

    def begin_another(_):
        if not (tmp_path / "config.json").exists():
            train(second, dataset, tmp_path, mesh=one_device, log=lambda _: None)

    with pytest.raises(CheckpointError, match="seed: 0 does not fit .* with 7"):
        train(first, dataset, tmp_path, mesh=one_device, log=begin_another)


@pytest.mark.parametrize("system", ["no locks", "no fcntl"])
def test_where_files_cannot_be_locked_a_warning_is_given(tmp_path, system, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if system == "no locks":
        monkeypatch.setattr(fcntl, "flock", refuse)
    else:
        monkeypatch.setattr(lock, "fcntl", None)
    with lock.hold(tmp_path):
        pass
    assert f"warning: {tmp_path}: files cannot be locked there" in line_of(capsys)


# The page.


def test_the_page_names_tests_that_exist():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    own = {name for name in globals() if name.startswith("test_")}
    assert own - named == {"test_the_page_names_tests_that_exist"}
    others = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for name in named - own:
        assert f"def {name}(" in others
