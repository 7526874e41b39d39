"""Batches from the devices' memory and from the thread: equal bits, and no thread left."""

import dataclasses
import json
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.errors import ConfigError
from daad_jax.runtime import sharding
from daad_jax.train import input_pipeline
from daad_jax.train.batches import BatchOrder
from daad_jax.train.input_pipeline import BatchSource, open_pipeline, open_source
from daad_jax.train.metrics_log import METRICS_FILE, TENSORBOARD
from daad_jax.workdir import logs
from daad_jax.workdir.logs import TIMINGS_FILE
from tests.conftest import tiny_config, tiny_dataset
from tests.train.runs import fit, program_of
from tests.workdir.test_tensorboard import read_events


def input_threads():
    return [one for one in threading.enumerate() if one.name.startswith("daad_jax-input")]


class Images(np.ndarray):
    """Images that call a function whenever a batch is read from them."""

    def __getitem__(self, index):
        if isinstance(index, np.ndarray):
            self.read(index)
        return np.asarray(super().__getitem__(index))


def with_images(dataset, read):
    kind = type("Read", (Images,), {"read": lambda self, index: read(index)})
    train = dataclasses.replace(dataset.train, inputs=dataset.train.images.view(kind))
    return dataclasses.replace(dataset, train=train)


@pytest.mark.parametrize("choice", ["yes", "no"])
@pytest.mark.parametrize("count", [1, 8])
def test_both_sources_give_the_batches_of_seed_and_step(choice, count):
    config = tiny_config(seed=3)
    images, order = tiny_dataset(config).train.images, BatchOrder(3, 24, 8)
    program = program_of(config, sharding.make_mesh(jax.devices()[:count]))
    source = open_source(choice, images, order, program)
    assert source.on_devices == (choice == "yes")
    with open_pipeline(source, range(2, 8)) as take:
        for step in range(2, 8):
            batch, _ = take(jnp.zeros(()))
            np.testing.assert_array_equal(batch, images[order.indices(step)])
            assert batch.dtype == np.uint8
            assert batch.sharding.is_equivalent_to(sharding.batched(program.mesh), batch.ndim)


@pytest.mark.parametrize("count", [1, 8])
def test_images_on_the_devices_give_a_bitwise_equal_run(tmp_path, count):
    mesh, states = sharding.make_mesh(jax.devices()[:count]), []
    for choice in ("yes", "no"):
        config = tiny_config(data__on_device=choice, train__steps=4)
        workdir = tmp_path / choice
        states.append(jax.device_get(fit(config, tiny_dataset(config), workdir, mesh=mesh)))
    jax.tree.map(np.testing.assert_array_equal, *states)
    written = [(tmp_path / choice / METRICS_FILE).read_bytes() for choice in ("yes", "no")]
    assert written[0] == written[1]


def test_batches_of_images_on_the_devices_are_not_read_from_the_host(tmp_path, one_device):
    reads = []
    for choice in ("yes", "no"):
        config = tiny_config(data__on_device=choice, train__steps=4)
        reads.clear()
        dataset = with_images(tiny_dataset(config), reads.append)
        fit(config, dataset, tmp_path / choice, mesh=one_device)
        assert len(reads) == {"yes": 0, "no": 5}[choice]  # one to initialise the memory items


def test_auto_keeps_images_on_an_accelerator_if_they_fit_beside_the_step(
    tmp_path, one_device, monkeypatch
):
    config = tiny_config()
    images = tiny_dataset(config).train.images
    program = program_of(config, one_device)
    assert not input_pipeline._keep_on_devices("auto", images, program)  # a CPU
    devices = np.array([types.SimpleNamespace(platform="gpu")])
    elsewhere = program._replace(mesh=types.SimpleNamespace(devices=devices))
    for room, fits in ((images.nbytes, True), (images.nbytes - 1, False), (-(10**9), False)):
        monkeypatch.setattr(
            input_pipeline, "available_memory", lambda mesh, room=room: program.memory_bytes + room
        )
        assert input_pipeline._keep_on_devices("auto", images, elsewhere) == fits
    monkeypatch.setattr(input_pipeline, "available_memory", lambda mesh: 10**12)
    assert not input_pipeline._keep_on_devices("no", images, elsewhere)


def test_images_that_do_not_fit_the_devices_are_a_config_error(tmp_path, one_device, monkeypatch):
    config = tiny_config(data__on_device="yes")
    program = program_of(config, one_device)
    monkeypatch.setattr(
        input_pipeline, "available_memory", lambda mesh: program.memory_bytes + 6000
    )
    with pytest.raises(ConfigError, match=r"data.on_device: the 24 training images need .* GiB"):
        fit(config, tiny_dataset(config), mesh=one_device)


def test_an_error_of_the_thread_is_raised_by_training_and_the_thread_ends(tmp_path, one_device):
    config, reads = tiny_config(), []

    def fail(index):
        reads.append(index)
        if len(reads) == 4:
            raise OSError(5, "Input/output error", "images.npy")

    dataset = with_images(tiny_dataset(config), fail)
    with pytest.raises(OSError, match="Input/output error"):
        fit(config, dataset, tmp_path, mesh=one_device)
    assert not input_threads()


def test_a_stop_leaves_no_thread(tmp_path, one_device):
    config, seen = tiny_config(), []
    dataset = with_images(tiny_dataset(config), lambda _: seen.append(input_threads()))
    fit(config, dataset, tmp_path, mesh=one_device, stop_at=2)
    assert any(seen)
    assert not input_threads()


def test_timings_have_a_line_for_each_interval_and_are_in_tensorboard(tmp_path, one_device):
    config = tiny_config(train__steps=7, train__log_every=2)
    dataset = with_images(tiny_dataset(config), lambda _: time.sleep(0.05))
    for stop in (5, None):
        fit(config, dataset, tmp_path, mesh=one_device, stop_at=stop)
        with (tmp_path / TIMINGS_FILE).open("a") as file:
            file.write('{"step": 99, "seconds": 1.0}\n{"step": 6, "sec')  # killed while writing
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
def test_a_run_that_waits_for_its_data_gives_a_warning(
    tmp_path, one_device, monkeypatch, capsys, pause
):
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(logs, "WAIT_SHARE", 0.001)
    monkeypatch.setattr(input_pipeline, "_wait", lambda batch, running: pause)
    config = tiny_config(data__on_device="no")
    fit(config, tiny_dataset(config), tmp_path, mesh=one_device)
    said = "training waited for data" in capsys.readouterr().err
    assert said == (pause > 0)


@pytest.mark.parametrize("busy", [False, True])
def test_only_idle_devices_wait(busy):
    matrix = jnp.ones((1500, 1500)) / 1500

    def slow(step):
        time.sleep(0.1)
        return jnp.zeros(3)

    @jax.jit
    def work(x):
        for _ in range(10):
            x = x @ matrix
        return x

    idle = work(matrix).block_until_ready()
    with open_pipeline(BatchSource(slow, False), range(1)) as take:
        result = work(matrix) if busy else idle
        _, waited = take(result)
        assert result.is_ready() != busy
    assert waited == 0.0 if busy else 0.05 < waited < 5.0
