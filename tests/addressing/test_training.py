"""Rules inside the generator: one training step, their losses, state, noise, banks and resume."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax.addressing import (
    MNAD,
    RULES,
    Entmax,
    Gumbel,
    HardShrinkage,
    Mean,
    Nearest,
    NearestEMA,
    ProductKey,
    Softmax,
    Threshold,
)
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.train.loop import train
from daad_jax.train.program import build_program
from daad_jax.train.state import count_parameters, init_state
from daad_jax.train.step import make_train_step, step_spec
from daad_jax.workdir.checkpoint import Checkpoints
from daad_jax.workdir.run import open_run
from tests.conftest import tiny_config, tiny_dataset

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
SCALE, MEMORY = "scale_2", "memories_1"
WEIGHTED = {  # No two weights are equal, and none is the weight of a loss without one.
    "hard_shrinkage": HardShrinkage(entropy_weight=0.3),
    "nearest": Nearest(codebook_weight=0.7, commitment_weight=0.6),
    "nearest_ema": NearestEMA(commitment_weight=0.6),
    "mnad": MNAD(compactness_weight=0.4, separateness_weight=0.9),
    "entmax": Entmax(learned=True),
}
LOSSES = {
    "hard_shrinkage": {"entropy_loss"},
    "nearest": {"codebook_loss", "commitment_loss"},
    "nearest_ema": {"commitment_loss"},
    "mnad": {"compactness_loss", "separateness_loss"},
}
AXES = {
    "memory__similarity": "distance",
    "memory__learned_temperature": True,
    "memory__banks": "position",
}


def rule_config(rule, **overrides):
    values = {"memory__addressing": str(rule), "memory__items": 9, "memory__scales": "bottleneck"}
    config = tiny_config("daad", **(values | overrides))
    config_lib.validate(config)
    return config


def start(config):
    """The networks, the step and the state at step 0."""
    networks, spec = build_networks(config), step_spec(config)
    average = config.train.average_decay > 0
    init = functools.partial(init_state, networks, spec.adam, average=average)
    state = jax.jit(init)(KEY, normalize_images(jnp.asarray(IMAGES)))
    return networks, jax.jit(make_train_step(networks, spec)), state


def one_step(config, steps=1):
    """The state before and after training steps, and the last metrics."""
    _, step, state = start(config)
    new = state
    for _ in range(steps):
        new, metrics, _ = step(new, IMAGES, KEY)
    return state, new, metrics


def memory_of(state):
    return state.generator.params[MEMORY]


def blocks_read(networks, variables, **options):
    images = normalize_images(jnp.asarray(IMAGES))
    outputs = networks.generator.apply(variables, images, **({"train": False} | options))
    outputs = outputs[0] if "mutable" in options else outputs
    return outputs.reads[SCALE].block


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_every_rule_trains_on_every_axis(name):
    rule = WEIGHTED.get(name, RULES[name]())
    config = rule_config(rule, **AXES)
    state, new, metrics = one_step(config)
    assert all(np.isfinite(value) for value in metrics.values())
    names = {one.split("/")[-1] for one in metrics if one.startswith("memory/")}
    plain = {
        *("active_items", "largest_weight", "entropy", "dead_reads"),
        *("unused_items", "perplexity"),
    }
    assert names == plain | LOSSES.get(name, set())
    weighted = sum(
        rule.loss_weights()[loss] * metrics[f"memory/{SCALE}/{loss}"]
        for loss in LOSSES.get(name, ())
    )
    np.testing.assert_allclose(metrics.get("loss/addressing", 0.0), weighted, rtol=1e-5)
    total = config.loss.rec * metrics["loss/rec"] + weighted
    np.testing.assert_allclose(metrics["loss/generator"], total, rtol=1e-5)
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), state.generator.memory, new.generator.memory
    )
    assert all(jax.tree.leaves(moved))
    stateful = name in ("gumbel", "nearest_ema", "mnad")
    assert (state.generator.memory != {}) == stateful
    assert ("memory" in state.generator.variables) == stateful


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "overrides"),
    [
        (Gumbel(), {}),
        (NearestEMA(), {"memory__banks": "position", "train__average_decay": 0.9}),
        (MNAD(), {"memory__banks": "2x1"}),
        (Entmax(learned=True), {"memory__learned_temperature": True}),
    ],
    ids=str,
)
def test_a_resumed_run_equals_an_undisturbed_one_bitwise(tmp_path, one_device, rule, overrides):
    config = rule_config(rule, train__steps=4, **overrides)
    images, networks = tiny_dataset(config).train.images, build_networks(config)

    def run(folder, **options):
        with open_run(folder, config, images) as opened:
            return train(
                config,
                networks,
                images,
                run=opened,
                mesh=one_device,
                log=lambda _: None,
                **options,
            )

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_at=2)
    resumed = run(tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(resumed))
    with Checkpoints(tmp_path / "parts") as checkpoints:
        restored = checkpoints.restore(jax.tree.map(lambda x: x, whole))
    jax.tree.map(np.testing.assert_array_equal, whole.generator.memory, restored.generator.memory)


@pytest.mark.slow
def test_one_and_eight_devices_agree_on_the_state_of_a_memory():
    config = rule_config(MNAD(), memory__banks="position")
    states = []
    for devices in (jax.devices()[:1], jax.devices()[:8]):
        mesh = sharding.make_mesh(devices)
        program = build_program(build_networks(config), step_spec(config), IMAGES.shape, mesh)
        batch = sharding.place_batch(IMAGES.shape, IMAGES.__getitem__, mesh)
        key = jax.device_put(KEY, sharding.replicated(mesh))
        states.append(jax.device_get(program.step(program.init(KEY, batch), batch, key)[0]))
    one, eight = (state.generator.memory[MEMORY]["state"] for state in states)
    np.testing.assert_allclose(one["memory_items"], eight["memory_items"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_learned_temperature_learns():
    config = rule_config(Softmax(), memory__learned_temperature=True)
    networks, step, state = start(config)
    new = step(state, IMAGES, KEY).state
    old, moved = (memory_of(one)["log_temperature"] for one in (state, new))
    np.testing.assert_allclose(jnp.exp(old), 0.5, rtol=1e-6)
    assert moved != old
    fixed = build_networks(rule_config(Softmax(), memory__temperature=0.5))
    variables = jax.tree.map(lambda x: x, state.generator.variables)
    learned = blocks_read(networks, variables)
    del variables["params"][MEMORY]["log_temperature"]
    np.testing.assert_allclose(blocks_read(fixed, variables), learned, rtol=1e-5, atol=1e-6)


def test_frozen_items_stay_and_the_rest_learns():
    config = rule_config(Threshold(), memory__frozen=True, train__average_decay=0.9)
    state, new, _ = one_step(config, steps=2)
    first = memory_of(state)["memory_items"]
    np.testing.assert_array_equal(first, memory_of(new)["memory_items"])
    averaged = new.average[0]["params"][MEMORY]["memory_items"]
    np.testing.assert_allclose(averaged, first, rtol=1e-6)
    adam = new.generator.opt_state[0]
    for moments in (adam.mu, adam.nu):
        assert not np.any(moments[MEMORY]["memory_items"])
    old, moved = (one.generator.params["decoder"]["conv_1"]["kernel"] for one in (state, new))
    assert np.any(old != moved)
    _, free, _ = one_step(rule_config(Threshold()))
    assert np.any(first != memory_of(free)["memory_items"])


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Nearest(), Gumbel(), HardShrinkage()], ids=str)
def test_frozen_items_of_rules_with_losses_or_state_stay(rule):
    state, new, _ = one_step(rule_config(rule, memory__frozen=True))
    old, moved = (memory_of(one)["memory_items"] for one in (state, new))
    np.testing.assert_array_equal(old, moved)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "learned"), [(ProductKey(), "subkeys"), (Entmax(learned=True), "alpha_logit")]
)
def test_arrays_that_a_rule_learns_besides_the_items_learn(rule, learned):
    state, new, _ = one_step(rule_config(rule))
    old, moved = (memory_of(one)["rule"][learned] for one in (state, new))
    assert np.all(old != moved)


def test_the_mean_item_is_read_by_every_block():
    networks, _, state = start(rule_config(Mean()))
    blocks = blocks_read(networks, state.generator.variables)
    mean = memory_of(state)["memory_items"].mean(0)
    np.testing.assert_allclose(blocks, np.broadcast_to(mean, blocks.shape), rtol=1e-4, atol=1e-6)


def test_items_in_the_state_count_as_memory_parameters():
    state, _, _ = one_step(rule_config(MNAD()))
    assert count_parameters(state)["memory"] == 9 * 32


def test_noise_follows_the_key_in_training_and_evaluation_has_none():
    networks, _, state = start(rule_config(Gumbel()))

    def read(train, seed):
        options = {
            "mutable": ["batch_stats", "memory"],
            "rngs": {"memory": jax.random.key(seed)},
        }
        return blocks_read(networks, state.generator.variables, train=train, **options)

    assert np.any(read(True, 0) != read(True, 1))
    np.testing.assert_array_equal(read(False, 0), read(False, 1))


def test_noise_differs_between_steps_and_between_runs():
    flips = {"data__flip_horizontal": False, "data__flip_vertical": False}
    _, step, state = start(rule_config(Gumbel(), **flips))
    later = dataclasses.replace(state, step=state.step + 1)
    runs = [(state, KEY), (later, KEY), (state, jax.random.key(1)), (state, KEY)]
    name = f"memory/{SCALE}/largest_weight"
    values = [float(step(before, IMAGES, key).metrics[name]) for before, key in runs]
    assert len(set(values[:3])) == 3
    assert values[3] == values[0]
