import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import sharding, watch
from daad_jax.errors import NonFiniteError
from daad_jax.program import build_program
from daad_jax.scoring import Scorer
from daad_jax.training import init_program, train, training_batch
from daad_jax.watch import Bank, Watch, finiteness, signs
from tests.conftest import tiny_config, tiny_dataset

UNDECIDED = {"discriminator/real": 0.5, "discriminator/fake": 0.499, "loss/discriminator": 1.386}
SURE = {"discriminator/real": 0.999, "discriminator/fake": 0.001, "loss/discriminator": 0.002}
HEALTHY = {"discriminator/real": 0.7, "discriminator/fake": 0.3, "loss/discriminator": 0.7}
BANKS = {"scale_1": Bank(items=20, reads=100)}


def quiet(_):
    pass


def test_the_first_tensor_that_is_not_finite_is_named_under_jit():
    @jax.jit
    def look(a, b):
        return finiteness(("parameters", {"w": a, "v": [b]}), ("", {"loss/rec": a}))

    assert look(1.0, 2.0).names == ("parameters/v/0", "parameters/w", "loss/rec")
    assert look(1.0, jnp.ones(3)).first_offender() is None
    assert look(jnp.array([1.0, jnp.inf]), jnp.ones(3)).first_offender() == "parameters/w"
    assert look(jnp.nan, jnp.array([1.0, jnp.nan])).first_offender() == "parameters/v/0"


@pytest.mark.parametrize(
    ("break_it", "first"),
    [
        (lambda g: g | {"decoder_1": {**g["decoder_1"], "bias": g["decoder_1"]["bias"] * np.nan}},
         "parameters/generator/decoder_1/bias"),
        # Finite weights, whose products are not.
        (lambda g: g | {"encoder_2": {"kernel": g["encoder_2"]["kernel"] * 1e38}},
         "features/scale_2"),
    ],
)  # fmt: skip
def test_a_step_names_what_breaks_first(break_it, first, one_device):
    config = tiny_config()
    dataset = tiny_dataset(config)
    program = build_program(config, one_device)
    state = init_program(program, config, dataset)
    old = state.generator
    broken = dataclasses.replace(old, params=break_it(old.params))
    state = jax.device_put(
        type(state)(state.step, broken, state.discriminator, state.average),
        sharding.replicated(one_device),
    )
    key = jax.device_put(jax.random.key(0), sharding.replicated(one_device))
    batch = training_batch(program, config, dataset, 0)
    assert program.step(state, batch, key)[2].first_offender() == first


def test_a_run_that_diverges_names_the_tensor_once_its_metrics_are_written(tmp_path, one_device):
    config = tiny_config(train__steps=20, train__learning_rate=1e25, train__log_every=7)
    message = r"^step \d+: (features|outputs)/\S+ is not finite; .*train.learning_rate"
    with pytest.raises(NonFiniteError, match=message) as caught:
        train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert str(caught.value).startswith(f"step {last['step']}: ")
    assert not (tmp_path / "checkpoints").exists()


def test_scores_that_are_not_finite_are_an_error(one_device):
    config = tiny_config()
    dataset = tiny_dataset(config)
    program = build_program(config, one_device)
    state = init_program(program, config, dataset)
    bias = state.generator.params["decoder_1"]["bias"]
    state.generator.params["decoder_1"]["bias"] = bias * jnp.nan
    with pytest.raises(NonFiniteError, match="^image 1 of 20: its reconstruction is not finite"):
        Scorer(config, state, one_device)(dataset.test.images)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        (HEALTHY, set()),
        (UNDECIDED, {"discriminator/undecided"}),
        (SURE, {"discriminator/sure"}),
        ({"loss/rec": 0.1}, set()),
        ({"memory/scale_1/dead_reads": 11.0}, {"scale_1/dead"}),
        ({"memory/scale_1/dead_reads": 10.0}, set()),
        ({"memory/scale_1/unused_items": 18.5}, {"scale_1/unused"}),
        ({"memory/scale_1/unused_items": 18.0}, set()),
    ],
)
def test_signs_of_a_part_that_learns_nothing(means, expected):
    assert set(signs(means, BANKS)) == expected


def test_each_sign_is_warned_of_once_and_by_the_mean_of_a_window(capsys):
    guard = Watch({})
    for step in range(1, 5 * watch.WINDOW + 1):
        # Every other step alone would be a sign; the mean of the first two windows is none.
        early = step <= 2 * watch.WINDOW
        guard.add(step, HEALTHY if early and step % 2 else UNDECIDED)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: steps 201 to 300: the discriminator has collapsed")


def test_a_run_whose_discriminator_learns_nothing_says_so(
    tmp_path, one_device, capsys, monkeypatch
):
    monkeypatch.setattr(watch, "WINDOW", 3)
    monkeypatch.setattr(watch, "UNDECIDED_GAP", 1.0)
    train(tiny_config(), tiny_dataset(tiny_config()), tmp_path, mesh=one_device, log=quiet)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: steps 1 to 3: the discriminator has collapsed")


def test_a_run_with_items_that_nothing_reads_says_so(tmp_path, one_device, capsys, monkeypatch):
    monkeypatch.setattr(watch, "WINDOW", 3)
    config = tiny_config("daad", memory__items=1000, memory__temperature=1e-4)
    train(config, tiny_dataset(config), tmp_path, mesh=one_device, log=quiet)
    lines = capsys.readouterr().err.splitlines()
    assert "warning: steps 1 to 3: scale_1: of 1000 memory items 9" in lines[0]
    assert [line.split(":")[2] for line in lines] == [" scale_1", " scale_2"]
