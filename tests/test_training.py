import json

import jax
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax import scoring, training
from daad_jax.checkpoint import Checkpoints, load_config
from daad_jax.errors import CheckpointError, ConfigError, NonFiniteError
from daad_jax.evaluation import evaluate
from daad_jax.training import train
from tests.conftest import tiny_config, tiny_dataset
from tests.test_tensorboard import read_events, shown_steps


def quiet(_):
    pass


def metrics_of(workdir):
    lines = (workdir / training.METRICS_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_bitwise_equal(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), jax.device_get((a,)), (b,))


@pytest.mark.parametrize("stops", [[1], [2, 3], [5]])
def test_a_resumed_run_equals_an_undisturbed_one_bitwise(tmp_path, one_device, stops):
    config = tiny_config()
    dataset = tiny_dataset(config)
    whole = train(config, dataset, tmp_path / "whole", mesh=one_device, log=quiet)
    for stop in [*stops, None]:
        resumed = train(
            config, dataset, tmp_path / "parts", mesh=one_device, stop_at=stop, log=quiet
        )
    assert int(resumed.step) == 6
    assert_bitwise_equal(whole, resumed)
    assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "parts")


def test_every_stop_in_and_between_epochs_leads_to_the_same_end(tmp_path, one_device):
    config = tiny_config(train__steps=7, train__average_decay=0.9)  # epochs of three steps
    dataset = tiny_dataset(config)
    whole = train(config, dataset, tmp_path / "whole", mesh=one_device, log=quiet)
    for stop in range(1, 8):
        config.train.checkpoint_every = stop  # which may change from one start to the next
        resumed = train(
            config, dataset, tmp_path / "parts", mesh=one_device, stop_at=stop, log=quiet
        )
        assert int(resumed.step) == stop
    assert_bitwise_equal(whole, resumed)
    shown = []
    for folder in (tmp_path / "whole", tmp_path / "parts"):
        evaluate(folder, dataset, mesh=one_device)
        names = (training.METRICS_FILE, "scores.csv", "evaluation.json", "reference.npz")
        events = read_events(folder / training.TENSORBOARD)
        shown.append((*((folder / name).read_bytes() for name in names), shown_steps(events)))
    assert shown[0] == shown[1]
    assert shown[0][-1] == [1, 2, 3, 4, 5, 6, 7]


def test_metrics_after_the_last_checkpoint_are_made_again(tmp_path, one_device):
    config = tiny_config(train__checkpoint_every=2)
    dataset = tiny_dataset(config)
    train(config, dataset, tmp_path, mesh=one_device, stop_at=4, log=quiet)
    undisturbed = metrics_of(tmp_path)
    with (tmp_path / training.METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "loss/rec": 1.0}\n{"step": 6, "loss/')  # died while writing
    train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    lines = metrics_of(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[:4] == undisturbed
    assert lines[4]["loss/rec"] != 1.0


def test_more_steps_go_on_from_a_finished_run(tmp_path, one_device):
    config = tiny_config(train__steps=3)
    dataset = tiny_dataset(config)
    train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    config.train.steps = 6
    longer = train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    whole = train(config, dataset, tmp_path / "whole", mesh=one_device, log=quiet)
    assert_bitwise_equal(longer, whole)
    assert metrics_of(tmp_path) == metrics_of(tmp_path / "whole")


def test_epochs_are_whole_batches():
    config = tiny_config()
    config.train.steps, config.train.epochs = None, 3
    assert training.total_steps(config, 30) == 9


def test_training_lowers_the_loss_and_learns_the_memory(tmp_path, one_device):
    config = tiny_config("daad", train__steps=60, train__learning_rate=3e-3)
    dataset = tiny_dataset(config)
    state = train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    lines = metrics_of(tmp_path)
    assert lines[-1]["loss/rec"] < 0.6 * lines[0]["loss/rec"]
    start = train(config, dataset, tmp_path / "s", mesh=one_device, stop_at=1, log=quiet)
    for scale in ("memory_1", "memory_2"):
        moved = state.generator.params[scale]["memory_items"]
        assert np.abs(moved - start.generator.params[scale]["memory_items"]).max() > 1e-3


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path, one_device):
    config = tiny_config(train__checkpoint_every=2, train__log_every=4)
    dataset = tiny_dataset(config)
    train(config, dataset, tmp_path, mesh=one_device, stop_at=2, log=quiet)
    broken = json.loads((tmp_path / "config.json").read_text())
    broken["train"]["learning_rate"] = config.train.learning_rate = 1e30
    (tmp_path / "config.json").write_text(json.dumps(broken))
    with pytest.raises(NonFiniteError, match=r"step \d: .* is not finite;.*train.learning_rate"):
        train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    last = metrics_of(tmp_path)[-1]
    assert "nan" in last.values() or "inf" in last.values()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() < last["step"]
        assert checkpoints.latest_step() in (2, 4)


def test_parameters_that_are_not_finite_are_never_saved(tmp_path, one_device):
    config = tiny_config(train__steps=1, train__learning_rate=1e39)
    with pytest.raises(NonFiniteError, match="step 1: .* is not finite after the update"):
        train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None


def test_other_images_are_refused(tmp_path, one_device):
    config = tiny_config()
    train(config, tiny_dataset(config), tmp_path, mesh=one_device, stop_at=1, log=quiet)
    with pytest.raises(CheckpointError, match="was trained on 24 other images"):
        train(config, tiny_dataset(config, seed=1), tmp_path, mesh=one_device, log=quiet)


def test_a_workdir_of_another_config_is_left_alone(tmp_path, one_device):
    config = tiny_config()
    dataset = tiny_dataset(config)
    train(config, dataset, tmp_path, mesh=one_device, stop_at=1, log=quiet)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = tiny_config(memory__items=9)
    with pytest.raises(CheckpointError, match=r"memory.items: 9 does not fit .* with 8"):
        train(other, dataset, tmp_path, mesh=one_device, log=quiet)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_damaged_checkpoint_or_config_is_named(tmp_path, one_device):
    config = tiny_config()
    dataset = tiny_dataset(config)
    train(config, dataset, tmp_path, mesh=one_device, stop_at=1, log=quiet)
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])
    with pytest.raises(
        CheckpointError, match=r"no checkpoint is sound \(1: manifest.json cannot be read\)"
    ):
        train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: cannot be read as JSON"):
        load_config(tmp_path)


def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path):
    config = tiny_config(train__batch_size=6)
    with pytest.raises(ConfigError, match="train.batch_size: 6 cannot be split over 8 devices"):
        train(config, tiny_dataset(config), tmp_path / "w", log=quiet)
    assert not (tmp_path / "w").exists()


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path, one_device, monkeypatch):
    monkeypatch.setattr("daad_jax.program.available_memory", lambda mesh: 20_000)
    config = tiny_config(memory__items=7)
    with pytest.raises(ConfigError, match=r"memory.items: this config needs about .* GiB"):
        train(config, tiny_dataset(config), tmp_path / "w", mesh=one_device, log=quiet)
    assert not (tmp_path / "w").exists()


def test_the_estimate_counts_state_gradients_and_more(one_device):
    small, large = (
        training.build_program(tiny_config("daad", memory__items=items), one_device)
        for items in (50, 5000)
    )
    added = large.parameters["memory"] - small.parameters["memory"]
    assert large.memory_bytes - small.memory_bytes >= 16 * added


def test_an_equal_config_is_compiled_once(one_device):
    first = training.build_program(tiny_config(), one_device)
    second = training.build_program(tiny_config(seed=5, train__steps=99), one_device)
    other = training.build_program(tiny_config(memory__items=9), one_device)
    assert first is second
    assert first is not other


@pytest.mark.parametrize("setting", sorted(config_lib.SETTINGS))
def test_every_setting_trains_on_eight_devices(tmp_path, setting):
    config = tiny_config(setting, train__steps=2)
    state = train(config, tiny_dataset(config), tmp_path, log=quiet)
    assert int(state.step) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))


def test_averaged_weights_are_evaluated_and_kept_with_the_run(tmp_path, one_device):
    config = tiny_config(train__average_decay=0.9, train__steps=4)
    dataset = tiny_dataset(config)
    state = train(config, dataset, tmp_path / "w", mesh=one_device, log=quiet)
    plain = tiny_config(train__steps=4)
    other = train(plain, dataset, tmp_path / "p", mesh=one_device, log=quiet)
    assert_bitwise_equal(state.variables, other.variables)

    def average(steps):
        """The mean that rises from the state at step 0, by its definition."""
        mean = None
        for step in range(steps + 1):
            stopped = train(
                plain, dataset, tmp_path / f"s{step}", mesh=one_device, stop_at=step, log=quiet
            )
            own = jax.tree.map(np.float64, jax.device_get(stopped.variables))
            rate = min(0.9, (1 + step) / (10 + step))
            mean = own if mean is None else mix(mean, own, rate)
        return mean

    def mix(mean, own, rate):
        return jax.tree.map(lambda m, o: rate * m + (1 - rate) * o, mean, own)

    for found, expected in zip(
        jax.tree.leaves(state.average), jax.tree.leaves(average(4)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    restored = scoring.restore_state(tmp_path / "w", config, one_device)
    assert_bitwise_equal(restored.average, state.average)
    assert_bitwise_equal(restored.evaluated, state.average)
    assert_bitwise_equal(other.evaluated, other.variables)
