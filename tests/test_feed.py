"""Batches from the devices' memory and from the thread: the same bits, and no thread left."""

import dataclasses
import json
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import feed, logs, sharding
from daad_jax.data import batches
from daad_jax.errors import ConfigError
from daad_jax.logs import TIMINGS_FILE
from daad_jax.training import METRICS_FILE, TENSORBOARD, build_program, train
from tests.conftest import tiny_config, tiny_dataset
from tests.test_tensorboard import read_events

STEPS = [range(0, 1), range(1, 4), range(4, 5), range(5, 8)]


def quiet(_):
    pass


def feed_threads():
    return [one for one in threading.enumerate() if one.name.startswith("daad_jax-feed")]


class Images(np.ndarray):
    """Images whose batches, and nothing else, are read slowly or not at all."""

    def __getitem__(self, index):
        if isinstance(index, np.ndarray):
            self.read(index)
        return np.asarray(super().__getitem__(index))


def with_images(dataset, read):
    kind = type("Read", (Images,), {"read": lambda self, index: read(index)})
    train = dataclasses.replace(dataset.train, images=dataset.train.images.view(kind))
    return dataclasses.replace(dataset, train=train)


@pytest.mark.parametrize("on_devices", [False, True])
@pytest.mark.parametrize("count", [1, 8])
def test_both_ways_feed_the_batches_of_seed_and_step(on_devices, count):
    config = tiny_config(seed=3)
    images = tiny_dataset(config).train.images
    mesh = sharding.make_mesh(jax.devices()[:count])
    with feed.open_feed(config, images, mesh, STEPS, on_devices=on_devices) as take:
        for steps in STEPS:
            fed = take(jnp.zeros(()))
            assert fed.steps == steps
            order = np.stack([batches.batch_indices(3, step, 24, 8) for step in steps])
            expected = images[order if len(steps) > 1 else order[0]]
            np.testing.assert_array_equal(fed.batch, expected)
            assert fed.batch.dtype == np.uint8
            axis = int(len(steps) > 1)
            assert fed.batch.sharding.is_equivalent_to(sharding.batched(mesh, axis), fed.batch.ndim)


@pytest.mark.parametrize("count", [1, 8])
def test_images_on_the_devices_give_the_same_run_bitwise(tmp_path, count):
    mesh, states = sharding.make_mesh(jax.devices()[:count]), []
    for choice in ("yes", "no"):
        config = tiny_config(data__on_device=choice, train__steps=4)
        workdir = tmp_path / choice
        states.append(
            jax.device_get(train(config, tiny_dataset(config), workdir, mesh=mesh, log=quiet))
        )
    jax.tree.map(np.testing.assert_array_equal, *states)
    written = [(tmp_path / choice / METRICS_FILE).read_bytes() for choice in ("yes", "no")]
    assert written[0] == written[1]


def test_the_images_are_read_once_when_they_stay_on_the_devices(tmp_path, one_device):
    reads = []
    for choice in ("yes", "no"):
        config = tiny_config(data__on_device=choice, train__steps=4)
        reads.clear()
        dataset = with_images(tiny_dataset(config), reads.append)
        train(config, dataset, tmp_path / choice, mesh=one_device, log=quiet)
        assert len(reads) == {"yes": 1, "no": 5}[choice]  # one for the scale of the items


def test_where_they_are_kept_is_decided_by_what_is_left(tmp_path, one_device, monkeypatch):
    config = tiny_config()
    images = tiny_dataset(config).train.images
    program = build_program(config, one_device)
    assert not feed.stays_on_devices(config, images, program)  # a CPU
    devices = np.array([types.SimpleNamespace(platform="gpu")])
    elsewhere = program._replace(mesh=types.SimpleNamespace(devices=devices))
    for room, fits in ((images.nbytes, True), (images.nbytes - 1, False), (-(10**9), False)):
        monkeypatch.setattr(feed, "available_memory", lambda mesh: program.memory_bytes + room)  # noqa: B023
        assert feed.stays_on_devices(config, images, elsewhere) == fits
    config.data.on_device = "no"
    monkeypatch.setattr(feed, "available_memory", lambda mesh: 10**12)
    assert not feed.stays_on_devices(config, images, elsewhere)


def test_images_that_are_to_stay_and_do_not_fit_are_one_line(tmp_path, one_device, monkeypatch):
    config = tiny_config(data__on_device="yes")
    program = build_program(config, one_device)
    monkeypatch.setattr(feed, "available_memory", lambda mesh: program.memory_bytes + 6000)
    with pytest.raises(ConfigError, match=r"data.on_device: the 24 training images need .* GiB"):
        train(config, tiny_dataset(config), tmp_path / "w", mesh=one_device, log=quiet)
    assert not (tmp_path / "w").exists()


def test_what_the_thread_meets_comes_out_of_training_and_the_thread_ends(tmp_path, one_device):
    config, reads = tiny_config(), []

    def fail(index):
        reads.append(index)
        if len(reads) == 4:
            raise OSError(5, "Input/output error", "images.npy")

    dataset = with_images(tiny_dataset(config), fail)
    with pytest.raises(OSError, match="Input/output error"):
        train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    assert not feed_threads()


def test_a_stop_leaves_no_thread(tmp_path, one_device):
    config, seen = tiny_config(), []
    dataset = with_images(tiny_dataset(config), lambda _: seen.append(feed_threads()))
    train(config, dataset, tmp_path, mesh=one_device, stop_at=2, log=quiet)
    assert any(seen)
    assert not feed_threads()


def test_times_are_a_line_for_each_interval_and_in_tensorboard(tmp_path, one_device):
    config = tiny_config(train__steps=7, train__log_every=2)
    dataset = with_images(tiny_dataset(config), lambda _: time.sleep(0.05))
    for stop in (5, None):
        train(config, dataset, tmp_path, mesh=one_device, stop_at=stop, log=quiet)
        with (tmp_path / TIMINGS_FILE).open("a") as file:
            file.write('{"step": 99, "seconds": 1.0}\n{"step": 6, "sec')  # died while writing
    *lines, _, _ = (tmp_path / TIMINGS_FILE).read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    assert [line["step"] for line in lines] == [2, 4, 5, 6, 7]
    for line, steps in zip(lines, (2, 2, 1, 1, 1), strict=True):
        assert 0 <= line["data_seconds"] <= line["seconds"]
        assert line["images_per_second"] == pytest.approx(8 * steps / line["seconds"])
    events = read_events(tmp_path / TENSORBOARD)
    shown = {
        (event.step, value.tag): value.simple_value
        for event in events
        for value in event.summary.value
        if value.tag.startswith("time/")
    }
    assert shown == {
        (line["step"], f"time/{name}"): pytest.approx(line[name])
        for line in lines
        if line["step"] % 2 == 0
        for name in ("seconds", "data_seconds", "images_per_second")
    }


@pytest.mark.parametrize("pause", [0.1, 0.0])
def test_a_run_that_waits_for_its_data_says_so(tmp_path, one_device, monkeypatch, capsys, pause):
    monkeypatch.setattr(logs, "MUCH_SECONDS", 0.05)
    monkeypatch.setattr(logs, "MUCH_SHARE", 0.5)
    config = tiny_config()
    dataset = with_images(tiny_dataset(config), lambda _: time.sleep(pause))
    train(config, dataset, tmp_path, mesh=one_device, log=quiet)
    said = "of the training time was waited for data (timings.jsonl)" in capsys.readouterr().err
    assert said == (pause > 0)


@pytest.mark.parametrize("busy", [False, True])
def test_only_idle_devices_wait(one_device, busy):
    config = tiny_config()
    slow = with_images(tiny_dataset(config), lambda _: time.sleep(0.1)).train.images
    matrix = jnp.ones((1500, 1500)) / 1500

    @jax.jit
    def work(x):
        for _ in range(10):
            x = x @ matrix
        return x

    idle = work(matrix).block_until_ready()
    with feed.open_feed(config, slow, one_device, STEPS[:1], on_devices=False) as take:
        result = work(matrix) if busy else idle
        waited = take(result).waited
        assert result.is_ready() != busy
    assert waited == 0.0 if busy else 0.05 < waited < 5.0
