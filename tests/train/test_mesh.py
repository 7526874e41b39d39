"""Training on meshes of devices that share the banks equals training on one device."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from daad_jax.config import MeshConfig
from daad_jax.errors import ConfigError
from daad_jax.runtime import sharding
from daad_jax.train import loop
from tests.conftest import tiny_config, tiny_dataset
from tests.train.runs import first_batch_and_state, fit, program_of


def mesh_of(devices, items, **fields):
    return sharding.make_mesh(jax.devices()[:devices], MeshConfig(items=items, **fields))


def stepped(config, mesh, steps=2):
    program = program_of(config, mesh)
    batch, state = first_batch_and_state(config, tiny_dataset(config), program)
    key = loop._step_key(0, mesh)
    for _ in range(steps):
        state, metrics, _ = program.step(state, batch, key)
    return state, jax.device_get(metrics)


@pytest.mark.parametrize(
    ("devices", "items", "rule"),
    [
        (8, 4, "threshold"),
        pytest.param(8, 8, "threshold", marks=pytest.mark.slow),
        pytest.param(8, 4, "nearest_ema", marks=pytest.mark.slow),
    ],
)
def test_a_step_on_a_mesh_is_that_of_one_device(one_device, devices, items, rule):
    config = tiny_config("daad", memory__addressing=rule)
    single, expected = stepped(config, one_device)
    state, metrics = stepped(config, mesh_of(devices, items))
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    for a, b in zip(*map(jax.tree.leaves, jax.device_get((state, single))), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    trained = state.generator
    bank = trained.memory["memories_0"]["state"] if trained.memory else trained.params["memories_0"]
    assert bank["memory_items"].sharding.spec == PartitionSpec("items", None)


@pytest.mark.slow
def test_moments_follow_their_parameters_and_can_be_split_over_the_data_axis():
    config = tiny_config("daad", mesh__split_moments=True)
    state, _ = stepped(config, mesh_of(8, 4), steps=1)
    moments = state.generator.opt_state[0].mu
    assert moments["memories_0"]["memory_items"].sharding.spec == PartitionSpec("items", "data")
    whole, _ = stepped(tiny_config("daad"), mesh_of(8, 4), steps=1)
    moments = whole.generator.opt_state[0].mu
    assert moments["memories_0"]["memory_items"].sharding.spec == PartitionSpec("items", None)
    for a, b in zip(*map(jax.tree.leaves, jax.device_get((state, whole))), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_checkpoint_of_one_mesh_is_restored_exactly_on_another(tmp_path):
    config = tiny_config("daad")
    meshes = {"2x4": mesh_of(8, 4), "4x2": mesh_of(8, 2), "1": mesh_of(1, 1)}
    dataset = tiny_dataset(config)
    states = {
        name: jax.device_get(fit(config, dataset, tmp_path, mesh=mesh))
        for name, mesh in meshes.items()  # the first one trains, the others restore its last step
    }
    for state in states.values():
        jax.tree.map(np.testing.assert_array_equal, state, states["2x4"])


@pytest.mark.parametrize(
    ("devices", "fields", "message"),
    [
        (8, {"items": 3}, r"mesh.items: 8 device\(s\) are not 2 x 3"),
        (8, {"items": 2, "data": 2}, r"8 device\(s\) are not 2 x 2"),
        (1, {"items": 4}, r"1 device\(s\) are not 1 x 4"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(devices, fields, message):
    with pytest.raises(ConfigError, match=message):
        mesh_of(devices, **fields)


def test_banks_that_cannot_be_shared_are_refused():
    config = tiny_config(
        "daad", memory__items=7, memory__division_rates=(4, 4, 1), data__channels=1
    )
    mesh = sharding.make_mesh(jax.devices()[:8], MeshConfig(items=8))
    with pytest.raises(ConfigError, match="8 devices cannot share 7 items of"):
        program_of(tiny_config("daad", memory__items=7, model__widths=(3, 3)), mesh)
    assert program_of(config, mesh).shapes is not None  # shared by the values of an item
