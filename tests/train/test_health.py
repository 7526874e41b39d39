"""The first tensor that is not finite, and warnings about parts that do not learn."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from daad_jax.errors import NonFiniteError
from daad_jax.runtime import sharding
from daad_jax.train import health
from daad_jax.train.health import (
    HealthCheck,
    MemorySize,
    discriminator_sign,
    finiteness,
    memory_signs,
)
from daad_jax.train.metrics_log import read_metrics
from tests.conftest import tiny_config, tiny_dataset
from tests.train.runs import first_batch_and_state, fit, program_of

TRAINED = {"gradient_norm/discriminator": 1.0}
UNDECIDED = TRAINED | {
    "discriminator/real": 0.5,
    "discriminator/fake": 0.499,
    "loss/discriminator": 1.386,
}
CONFIDENT = TRAINED | {
    "discriminator/real": 0.999,
    "discriminator/fake": 0.001,
    "loss/discriminator": 0.002,
}
HEALTHY = TRAINED | {
    "discriminator/real": 0.7,
    "discriminator/fake": 0.3,
    "loss/discriminator": 0.7,
}
SIZES = {"scale_1": MemorySize(items=20, reads=100)}
NAN, INF = float("nan"), float("inf")


def test_the_first_tensor_that_is_not_finite_is_named():
    @jax.jit
    def look(a, b):
        return finiteness(("features", {"w": a, "v": [b]}), ("", {"loss/rec": a}))

    assert look(1.0, 2.0).names == ("features/v/0", "features/w", "loss/rec")
    assert look(1.0, jnp.ones(3)).first_offender() is None
    assert look(jnp.array([1.0, INF]), jnp.ones(3)).first_offender() == "features/w"
    assert look(NAN, jnp.array([1.0, NAN])).first_offender() == "features/v/0"


def test_parameters_come_first_and_are_read_only_if_another_tensor_is_not_finite():
    @jax.jit
    def look(parameter, feature):
        return finiteness(("features", {"a": feature}), parameters={"g": parameter, "d": None})

    assert look(1.0, 1.0).names == ("parameters/g", "features/a")
    assert look(1.0, 1.0).first_offender() is None
    assert look(NAN, NAN).first_offender() == "parameters/g"
    assert look(1.0, NAN).first_offender() == "features/a"
    assert look(NAN, 1.0).first_offender() is None


def scaled(params, part, layer, leaf, factor):
    """The parameters with one array multiplied by a factor."""
    changed = params[part][layer] | {leaf: params[part][layer][leaf] * factor}
    return params | {part: params[part] | {layer: changed}}


@pytest.mark.parametrize(
    ("network", "change", "first"),
    [
        ("generator", ("decoder", "conv_1", "bias", NAN), "decoder/conv_1/bias"),
        ("generator", ("decoder", "conv_2", "kernel", INF), "decoder/conv_2/kernel"),
        ("generator", ("encoder", "norm_2", "scale", NAN), "encoder/norm_2/scale"),
        # Finite weights whose products are not finite.
        ("generator", ("encoder", "conv_2", "kernel", 1e38), "features/scale_2"),
        ("discriminator", ("conv_2", "kernel", NAN), "conv_2/kernel"),
    ],
)
def test_a_step_names_the_tensor_that_is_not_finite_first(network, change, first, one_device):
    config = tiny_config()
    program = program_of(config, one_device)
    batch, state = first_batch_and_state(config, tiny_dataset(config), program)
    old = getattr(state, network)
    params = {"": old.params} if network == "discriminator" else old.params
    path = ("", *change) if network == "discriminator" else change
    params = scaled(params, *path)
    params = params.get("", params)
    broken = dataclasses.replace(state, **{network: dataclasses.replace(old, params=params)})
    broken = jax.device_put(broken, sharding.replicated(one_device))
    key = jax.device_put(jax.random.key(0), sharding.replicated(one_device))
    expected = first if first.startswith("features") else f"parameters/{network}/{first}"
    assert program.step(broken, batch, key).finite.first_offender() == expected


@pytest.mark.parametrize("count", [1, 8])
def test_a_run_that_diverges_names_the_tensor_and_writes_its_metrics(tmp_path, count):
    config = tiny_config(train__steps=20, train__learning_rate=1e25, train__log_every=7)
    mesh = sharding.make_mesh(jax.devices()[:count])
    message = r"^step \d+: (features|outputs)/\S+ is not finite; .*train.learning_rate"
    with pytest.raises(NonFiniteError, match=message) as caught:
        fit(config, tiny_dataset(config), tmp_path, mesh=mesh)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert str(caught.value).startswith(f"step {last['step']}: ")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("means", "started", "expected"),
    [
        (HEALTHY, True, set()),
        (UNDECIDED, True, {"discriminator/undecided"}),
        (UNDECIDED, False, set()),
        (CONFIDENT, False, {"discriminator/confident"}),
        ({"loss/rec": 0.1}, True, set()),
        (UNDECIDED | {"loss/rec": 0.1}, True, {"discriminator/undecided"}),
    ],
)
def test_signs_of_the_discriminator(means, started, expected):
    assert set(discriminator_sign(means, started=started)) == expected


def test_an_untrained_discriminator_is_no_sign():
    untrained = {name: value for name, value in UNDECIDED.items() if name not in TRAINED}
    assert discriminator_sign(untrained, started=True) == {}


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"loss/rec": 0.1}, set()),
        ({"memory/scale_1/dead_reads": 11.0}, {"scale_1/dead"}),
        ({"memory/scale_1/dead_reads": 10.0}, set()),
        ({"memory/scale_1/unused_items": 18.5}, {"scale_1/unused"}),
        ({"memory/scale_1/unused_items": 18.0}, set()),
    ],
)
def test_signs_of_a_memory(means, expected):
    assert set(memory_signs(means, SIZES)) == expected


def warnings_of(windows, capsys, first=1):
    """The warnings of a run whose metrics are constant in each window."""
    check, step = HealthCheck({}), first
    for values in windows:
        for _ in range(health.WINDOW):
            check.add(step, values)
            step += 1
    return capsys.readouterr().err.splitlines()


def test_a_discriminator_that_has_not_started_gives_no_warning(capsys):
    count = health.START_STEPS // health.WINDOW
    assert warnings_of([UNDECIDED] * (count - 1), capsys) == []
    (line,) = warnings_of([UNDECIDED] * (count + 5), capsys)
    assert line.startswith("warning: steps 901 to 1000: the discriminator cannot tell images from")


def test_a_discriminator_that_had_started_gives_one_warning(capsys):
    (line,) = warnings_of([UNDECIDED, HEALTHY, UNDECIDED, UNDECIDED], capsys)
    assert line.startswith("warning: steps 201 to 300: the discriminator cannot tell images from")
    (line,) = warnings_of([UNDECIDED], capsys, first=5001)  # a resumed run
    assert line.startswith("warning: steps 5001 to 5100: the discriminator cannot tell images")


def test_a_warning_follows_the_mean_of_a_window(capsys):
    check = HealthCheck({})
    for step in range(1, 3001):  # every second step alone would be a sign
        check.add(step, HEALTHY if step % 2 else UNDECIDED)
    assert not capsys.readouterr().err


def test_the_first_steps_of_a_real_run_give_no_warning(tmp_path, one_device, capsys, monkeypatch):
    monkeypatch.setattr(health, "WINDOW", 20)
    config = tiny_config(seed=1, train__steps=100)
    fit(config, tiny_dataset(config), tmp_path, mesh=one_device)
    metrics = read_metrics(tmp_path)
    gaps = metrics["discriminator/real"] - metrics["discriminator/fake"]
    # By its limit alone the first window would be a sign; later the discriminator has learned.
    assert abs(gaps[:20].mean()) < health.UNDECIDED_GAP
    assert gaps[-20:].mean() > health.SEPARATED_GAP
    assert not capsys.readouterr().err


def test_memory_items_that_are_never_read_give_a_warning(tmp_path, one_device, capsys, monkeypatch):
    monkeypatch.setattr(health, "WINDOW", 3)
    config = tiny_config("daad", memory__items=1000, memory__temperature=1e-4)
    fit(config, tiny_dataset(config), tmp_path, mesh=one_device)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("warning: steps 1 to 3: scale_1: 9")
    assert "of the 1000 memory items are not read in a step" in lines[0]
    assert [line.split(":")[2] for line in lines] == [" scale_1", " scale_2"]
