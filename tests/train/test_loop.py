"""The training loop: resume, stops, plans, runs without a folder, and errors."""

import json

import jax
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax.errors import CheckpointError, ConfigError, NonFiniteError
from daad_jax.models.build import build_networks
from daad_jax.train import loop
from daad_jax.train.metrics_log import METRICS_FILE, TENSORBOARD
from daad_jax.train.state import restore_state
from daad_jax.workdir.checkpoint import Checkpoints
from tests.conftest import tiny_config, tiny_dataset
from tests.train.runs import assert_bitwise_equal, fit, metrics_of, program_of
from tests.workdir.test_tensorboard import read_events, shown_steps


@pytest.mark.parametrize("stops", [[1], [2, 3], [5]])
def test_a_resumed_run_is_bitwise_equal_to_an_undisturbed_one(tmp_path, one_device, stops):
    config = tiny_config()
    dataset = tiny_dataset(config)
    whole = fit(config, dataset, tmp_path / "whole", mesh=one_device)
    for stop in [*stops, None]:
        resumed = fit(config, dataset, tmp_path / "parts", mesh=one_device, stop_at=stop)
    assert int(resumed.step) == 6
    assert_bitwise_equal(whole, resumed)
    assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "parts")


def test_stops_inside_and_between_epochs_do_not_change_the_result(tmp_path, one_device):
    config = tiny_config(train__steps=7, train__average_decay=0.9)  # epochs of three steps
    dataset = tiny_dataset(config)
    whole = fit(config, dataset, tmp_path / "whole", mesh=one_device)
    for stop in range(1, 8):
        config.train.checkpoint_every = stop  # which may change when a run is resumed
        resumed = fit(config, dataset, tmp_path / "parts", mesh=one_device, stop_at=stop)
        assert int(resumed.step) == stop
    assert_bitwise_equal(whole, resumed)
    written = [(tmp_path / name / METRICS_FILE).read_bytes() for name in ("whole", "parts")]
    assert written[0] == written[1]
    for name in ("whole", "parts"):
        events = read_events(tmp_path / name / TENSORBOARD)
        assert shown_steps(events) == [1, 2, 3, 4, 5, 6, 7]


def test_metrics_after_the_last_checkpoint_are_written_again(tmp_path, one_device):
    config = tiny_config(train__checkpoint_every=2)
    dataset = tiny_dataset(config)
    fit(config, dataset, tmp_path, mesh=one_device, stop_at=4)
    undisturbed = metrics_of(tmp_path)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "loss/rec": 1.0}\n{"step": 6, "loss/')  # killed while writing
    fit(config, dataset, tmp_path, mesh=one_device)
    lines = metrics_of(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[:4] == undisturbed
    assert lines[4]["loss/rec"] != 1.0


def test_a_finished_run_can_be_continued_with_more_steps(tmp_path, one_device):
    config = tiny_config(train__steps=3)
    dataset = tiny_dataset(config)
    fit(config, dataset, tmp_path, mesh=one_device)
    config.train.steps = 6
    longer = fit(config, dataset, tmp_path, mesh=one_device)
    whole = fit(config, dataset, tmp_path / "whole", mesh=one_device)
    assert_bitwise_equal(longer, whole)
    assert metrics_of(tmp_path) == metrics_of(tmp_path / "whole")


def test_without_a_folder_training_gives_the_same_state_and_writes_nothing(
    tmp_path, one_device, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(train__checkpoint_every=2)
    dataset = tiny_dataset(config)
    state = fit(config, dataset, mesh=one_device)
    assert not any(tmp_path.iterdir())
    assert_bitwise_equal(state, fit(config, dataset, tmp_path / "w", mesh=one_device))
    config.train.learning_rate = 1e30
    with pytest.raises(NonFiniteError, match=r"step 2: .* is not finite"):
        fit(config, dataset, mesh=one_device)


def test_an_epoch_has_only_whole_batches():
    config = tiny_config()
    config.train.steps, config.train.epochs = None, 3
    assert loop.make_plan(config, 30).steps == 9
    assert loop.make_plan(config, 30, stop_at=4).end == 4
    assert loop.make_plan(config, 30, stop_at=40).end == 9


def test_a_batch_larger_than_the_training_set_is_a_config_error(tmp_path, one_device, monkeypatch):
    monkeypatch.setattr(loop, "build_program", None)  # nothing is compiled before
    config = tiny_config(train__batch_size=25)
    with pytest.raises(ConfigError, match="train.batch_size: 25 is more than the 24 training"):
        fit(config, tiny_dataset(config), mesh=one_device)


def test_training_lowers_the_loss_and_moves_the_memory_items(tmp_path, one_device):
    config = tiny_config("daad", train__steps=60, train__learning_rate=3e-3)
    dataset = tiny_dataset(config)
    state = fit(config, dataset, tmp_path, mesh=one_device)
    lines = metrics_of(tmp_path)
    assert lines[-1]["loss/rec"] < 0.6 * lines[0]["loss/rec"]
    start = fit(config, dataset, mesh=one_device, stop_at=1)
    for scale in ("memories_0", "memories_1"):
        items = [one.generator.params[scale]["memory_items"] for one in (start, state)]
        assert np.abs(items[0] - items[1]).max() > 1e-3


def test_a_step_that_is_not_finite_is_not_saved(tmp_path, one_device):
    config = tiny_config(train__checkpoint_every=2, train__log_every=4)
    dataset = tiny_dataset(config)
    fit(config, dataset, tmp_path, mesh=one_device, stop_at=2)
    broken = json.loads((tmp_path / "config.json").read_text())
    broken["train"]["learning_rate"] = config.train.learning_rate = 1e30
    (tmp_path / "config.json").write_text(json.dumps(broken))
    with pytest.raises(NonFiniteError, match=r"step \d: .* is not finite;.*train.learning_rate"):
        fit(config, dataset, tmp_path, mesh=one_device)
    last = metrics_of(tmp_path)[-1]
    assert "nan" in last.values() or "inf" in last.values()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() < last["step"]
        assert checkpoints.latest_step() in (2, 4)


def test_parameters_that_are_not_finite_are_never_saved(tmp_path, one_device):
    config = tiny_config(train__steps=1, train__learning_rate=1e39)
    with pytest.raises(NonFiniteError, match="step 1: .* is not finite after the update"):
        fit(config, tiny_dataset(config), tmp_path, mesh=one_device)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None


def test_a_run_without_a_sound_checkpoint_is_not_resumed(tmp_path, one_device):
    config = tiny_config()
    dataset = tiny_dataset(config)
    fit(config, dataset, tmp_path, mesh=one_device, stop_at=1)
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        fit(config, dataset, tmp_path, mesh=one_device)


def test_a_batch_that_the_devices_cannot_share_is_a_config_error():
    config = tiny_config(train__batch_size=6)
    with pytest.raises(ConfigError, match="6 cannot be split over 8 devices; .* use fewer devices"):
        fit(config, tiny_dataset(config))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("daad", r"memory.items: this config needs about .* GiB .* lower memory.items \(7\)"),
        ("ae", r"model.widths: this config needs about .* available; lower model.widths$"),
    ],
)
def test_parameters_that_do_not_fit_the_memory_are_an_error_before_compiling(
    one_device, monkeypatch, setting, message
):
    monkeypatch.setattr("daad_jax.train.program.available_memory", lambda mesh: 10_000)
    monkeypatch.setattr("daad_jax.train.program._step_memory", None)  # what follows compiling
    config = tiny_config(setting, memory__items=7)
    with pytest.raises(ConfigError, match=message):
        fit(config, tiny_dataset(config), mesh=one_device)


def test_a_step_that_does_not_fit_the_memory_is_a_config_error(one_device, monkeypatch):
    config = tiny_config(memory__items=6)
    room = program_of(config, one_device).memory_bytes - 1
    loop.build_program.cache_clear()
    monkeypatch.setattr("daad_jax.train.program.available_memory", lambda mesh: room)
    lower = r"lower memory.items \(6\), model.widths, data.image_size, train.batch_size; or raise"
    with pytest.raises(ConfigError, match=f"memory.items: this config needs about .*{lower}"):
        fit(config, tiny_dataset(config), mesh=one_device)


def test_a_batch_of_one_image_is_not_to_be_lowered(one_device, monkeypatch):
    config = tiny_config("ae", train__batch_size=1)
    room = program_of(config, one_device).memory_bytes - 1
    loop.build_program.cache_clear()
    monkeypatch.setattr("daad_jax.train.program.available_memory", lambda mesh: room)
    with pytest.raises(ConfigError, match="lower model.widths, data.image_size$"):
        fit(config, tiny_dataset(config), mesh=one_device)


@pytest.mark.slow
@pytest.mark.parametrize("setting", sorted(config_lib.SETTINGS))
def test_every_setting_trains_on_eight_devices(tmp_path, setting):
    config = tiny_config(setting, train__steps=2)
    state = fit(config, tiny_dataset(config), tmp_path)
    assert int(state.step) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))


def test_the_running_average_follows_its_definition_and_is_saved(tmp_path, one_device):
    config = tiny_config(train__average_decay=0.9, train__steps=4)
    dataset = tiny_dataset(config)
    state = fit(config, dataset, tmp_path / "w", mesh=one_device)
    plain = tiny_config(train__steps=4)
    mean = None
    for step in range(5):
        stopped = fit(plain, dataset, mesh=one_device, stop_at=step)
        own = jax.tree.map(np.float64, jax.device_get(stopped.variables))
        rate = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        mean = jax.tree.map(lambda m, o, r=rate: r * m + (1 - r) * o, mean or own, own)
    assert_bitwise_equal(state.variables, stopped.variables)
    for found, expected in zip(jax.tree.leaves(state.average), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    restored = restore_state(tmp_path / "w", config, build_networks(config), one_device)
    assert_bitwise_equal(restored, state)
    assert_bitwise_equal(restored.eval_variables, state.average)
    assert_bitwise_equal(stopped.eval_variables, stopped.variables)
