"""Several steps per dispatch: the same run, in the same lines, from any step on."""

import itertools

import jax
import numpy as np
import pytest

from daad_jax import sharding, training
from daad_jax.checkpoint import Checkpoints
from daad_jax.errors import ConfigError, NonFiniteError
from daad_jax.training import METRICS_FILE, build_program, dispatches, read_metrics, train
from tests.conftest import tiny_config, tiny_dataset


def quiet(_):
    pass


@pytest.mark.parametrize("every", [1, 3, 5, 8, 100])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_no_dispatch_passes_a_checkpoint_or_the_end(every, size):
    config = tiny_config(train__steps_per_dispatch=size, train__checkpoint_every=every)
    undisturbed = list(dispatches(0, 30, config))
    for start, end in itertools.product(range(0, 20, 3), (20, 23, 30)):
        plan = list(dispatches(start, end, config))
        assert [step for steps in plan for step in steps] == list(range(start, end))
        for steps in plan:
            assert len(steps) in (1, size)
            assert steps.start // every == (steps.stop - 1) // every
    for steps in undisturbed:  # from wherever one ends, the next are the same
        assert list(dispatches(steps.stop, 30, config)) == [
            other for other in undisturbed if other.start >= steps.stop
        ]
    several = sum(len(steps) > 1 for steps in undisturbed)
    assert several == (0 if size == 1 else 30 // every * (every // size) + 30 % every // size)


@pytest.mark.parametrize("count", [1, 8])
def test_several_steps_at_once_are_the_same_run_but_for_rounding(tmp_path, count):
    mesh, states, columns = sharding.make_mesh(jax.devices()[:count]), [], []
    for size in (1, 2):
        config = tiny_config(
            train__steps=8,
            train__steps_per_dispatch=size,
            train__checkpoint_every=7,
            train__log_every=2,
            train__average_decay=0.9,
            train__keep_checkpoints=9,
        )
        workdir = tmp_path / str(size)
        state = train(config, tiny_dataset(config), workdir, mesh=mesh, log=quiet)
        states.append(jax.device_get(state))
        columns.append(read_metrics(workdir))
        assert columns[-1]["step"].tolist() == [2, 4, 6, 8]
        assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()) == [7, 8]
    assert int(states[1].step) == 8
    one, several = columns
    assert one.keys() == several.keys()
    for name in one:
        np.testing.assert_allclose(one[name], several[name], rtol=1e-4, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *states)


def test_a_run_that_goes_on_is_bitwise_the_undisturbed_one(tmp_path, one_device):
    config = tiny_config(train__steps=9, train__steps_per_dispatch=2, train__checkpoint_every=5)
    dataset = tiny_dataset(config)
    whole = train(config, dataset, tmp_path / "whole", mesh=one_device, log=quiet)
    for stop in (2, 5, 7, None):
        parts = train(config, dataset, tmp_path / "parts", mesh=one_device, stop_at=stop, log=quiet)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((whole, parts)))
    both = [(tmp_path / name / METRICS_FILE).read_bytes() for name in ("whole", "parts")]
    assert both[0] == both[1]


def test_the_step_that_is_not_finite_is_named_among_several(tmp_path, one_device):
    messages = []
    for size in (1, 3):
        config = tiny_config(train__learning_rate=1e30, train__steps_per_dispatch=size)
        with pytest.raises(NonFiniteError) as caught:
            train(config, tiny_dataset(config), tmp_path / str(size), mesh=one_device, log=quiet)
        messages.append(str(caught.value))
        with Checkpoints(tmp_path / str(size)) as checkpoints:
            assert checkpoints.latest_step() is None
    assert messages[0] == messages[1]
    assert messages[0].startswith("step 2: ")
    steps = [read_metrics(tmp_path / str(size))["step"].tolist() for size in (1, 3)]
    assert steps == [[1, 2], [1, 2]]


def test_several_steps_that_cannot_fit_are_refused(tmp_path, one_device, monkeypatch):
    config = tiny_config(memory__items=6, train__steps_per_dispatch=2)
    program = build_program(config, one_device)
    room = program.memory_bytes
    monkeypatch.setattr("daad_jax.program.available_memory", lambda mesh: room)
    with pytest.raises(ConfigError, match=r"memory.items: this config needs about"):
        train(config, tiny_dataset(config), tmp_path / "w", mesh=one_device, log=quiet)
    assert not (tmp_path / "w").exists()
    assert training.build_program(tiny_config(memory__items=6), one_device) is program
