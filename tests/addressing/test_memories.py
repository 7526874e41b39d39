"""Rules and axes inside the generator: banks, learned temperatures, state, losses, resume."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import addressing, memory, partition, sharding
from daad_jax import config as config_lib
from daad_jax.addressing import RULES
from daad_jax.checkpoint import Checkpoints
from daad_jax.errors import ConfigError
from daad_jax.memory import BlockMemory
from daad_jax.program import build_program
from daad_jax.state import build_networks, build_optimizer, count_parameters, init_state
from daad_jax.step import normalize_images, step_spec, train_step
from daad_jax.training import train
from tests.conftest import tiny_config, tiny_dataset

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
LOSSES = {
    "hard_shrinkage": {"entropy_loss"},
    "nearest": {"codebook_loss", "commitment_loss"},
    "nearest_ema": {"commitment_loss"},
    "mnad": {"compactness_loss", "separateness_loss"},
}


def rule_config(rule, **overrides):
    values = {"memory__addressing": rule, "memory__items": 9, "memory__scales": "bottleneck"}
    config = tiny_config("daad", **(values | overrides))
    config_lib.validate(config)
    return config


def one_step(config, steps=1):
    networks, optimizer = build_networks(config), build_optimizer(config)
    average = config.train.average_decay > 0
    init = jax.jit(functools.partial(init_state, networks, optimizer, average=average))
    state = init(KEY, normalize_images(jnp.asarray(IMAGES)))
    step = jax.jit(functools.partial(train_step, networks, optimizer, step_spec(config)))
    new = state
    for _ in range(steps):
        new, metrics, _ = step(new, IMAGES, KEY)
    return state, new, metrics


WEIGHTS = {  # no two alike, and none that a loss would have without
    "entropy_weight": 0.3,
    "codebook_weight": 0.7,
    "commitment_weight": 0.6,
    "compactness_weight": 0.4,
    "separateness_weight": 0.9,
}


AXES = {
    "memory__similarity": "distance",
    "memory__learned_temperature": True,
    "memory__banks": "position",
    "memory__learned_alpha": True,
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains_on_every_axis(rule):
    weights = {f"memory__{name}": value for name, value in WEIGHTS.items()}
    config = rule_config(rule, **weights, **AXES)
    state, new, metrics = one_step(config)
    assert all(np.isfinite(value) for value in metrics.values())
    names = {name.split("/")[-1] for name in metrics if name.startswith("memory/")}
    plain = {
        "active_items",
        "largest_weight",
        "entropy",
        "dead_reads",
        "unused_items",
        "perplexity",
    }
    assert names == plain | LOSSES.get(rule, set())
    weighted = sum(
        getattr(config.memory, name.replace("_loss", "_weight")) * metrics[f"memory/scale_2/{name}"]
        for name in LOSSES.get(rule, ())
    )
    np.testing.assert_allclose(metrics.get("loss/addressing", 0.0), weighted, rtol=1e-5)
    total = config.loss.rec * metrics["loss/rec"] + weighted
    np.testing.assert_allclose(metrics["loss/generator"], total, rtol=1e-5)
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), state.generator.memory, new.generator.memory
    )
    assert all(jax.tree.leaves(moved))
    stateful = rule in ("gumbel", "nearest_ema", "mnad")
    assert (state.generator.memory != {}) == stateful
    assert ("memory" in state.generator.variables) == stateful


@pytest.mark.parametrize(
    ("rule", "overrides"),
    [
        ("gumbel", {}),
        ("nearest_ema", {"memory__banks": "position", "train__average_decay": 0.9}),
        ("mnad", {"memory__banks": "2x1"}),
        ("entmax", {"memory__learned_alpha": True, "memory__learned_temperature": True}),
    ],
)
def test_a_resumed_run_equals_an_undisturbed_one_bitwise(tmp_path, one_device, rule, overrides):
    config = rule_config(rule, train__steps=4, **overrides)
    dataset = tiny_dataset(config)
    options = {"mesh": one_device, "log": lambda _: None}
    whole = train(config, dataset, tmp_path / "whole", **options)
    train(config, dataset, tmp_path / "parts", stop_at=2, **options)
    resumed = train(config, dataset, tmp_path / "parts", **options)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(resumed))
    with Checkpoints(tmp_path / "parts") as checkpoints:
        restored = checkpoints.restore(jax.tree.map(lambda x: x, whole))
    jax.tree.map(np.testing.assert_array_equal, whole.generator.memory, restored.generator.memory)


def test_one_device_and_eight_agree_on_the_state_of_a_memory():
    config = rule_config("mnad", memory__banks="position")
    states = []
    for devices in (jax.devices()[:1], jax.devices()[:8]):
        program = build_program(config, sharding.make_mesh(devices))
        batch = sharding.place_batch(IMAGES.shape, IMAGES.__getitem__, program.mesh)
        key = jax.device_put(KEY, sharding.replicated(program.mesh))
        states.append(jax.device_get(program.step(program.init(KEY, batch), batch, key)[0]))
    one, eight = (
        state.generator.memory["memory_1" if False else "memory_2"]["state"] for state in states
    )
    np.testing.assert_allclose(one["memory_items"], eight["memory_items"], rtol=1e-4, atol=1e-5)


def test_banks_are_reads_of_their_own_positions():
    feature_map = jax.random.normal(KEY, (3, 8, 8, 4))
    module = BlockMemory(5, (4, 4, 2), groups=(2, 2, 1))
    variables = module.init(KEY, feature_map)
    items = variables["params"]["memory_items"]
    assert items.shape == (4, 5, 8)
    _, reads, batch = module.apply(variables, feature_map, True)
    queries = partition.divide(feature_map, (4, 4, 2)).reshape(3, 4, 4, 2, 8)
    assert reads.weights.shape == (3, 32, 5)
    for row, column, bank in ((0, 3, 1), (3, 1, 2), (2, 2, 3)):
        alone = memory.read(queries[1, row, column, 1], items[bank], return_weights=True)
        index = (row * 4 + column) * 2 + 1
        np.testing.assert_allclose(reads.weights[1, index], alone.weights, rtol=1e-5)
        np.testing.assert_allclose(reads.block[1, index], alone.block, rtol=1e-4, atol=1e-6)
    grouped = partition.group(reads.weights, (4, 4, 2), (2, 2, 1))
    np.testing.assert_allclose(batch.usage.weight, grouped.sum((1, 2)).reshape(-1), rtol=1e-5)


def test_groups_are_rows_and_columns_of_the_blocks():
    assert partition.resolve_groups("one", (4, 6, 2), 0) == (1, 1, 1)
    assert partition.resolve_groups("position", (4, 6, 2), 0) == (4, 6, 2)
    assert partition.resolve_groups("2x3", (4, 6, 2), 0) == (2, 3, 1)


def test_grouping_is_undone():
    blocks = jax.random.normal(KEY, (2, 24, 3))
    for groups in ((1, 1, 1), (2, 3, 1), (4, 3, 2)):
        grouped = partition.group(blocks, (4, 3, 2), groups)
        np.testing.assert_array_equal(partition.ungroup(grouped, (4, 3, 2), groups), blocks)


def test_a_learned_temperature_learns():
    state, new, _ = one_step(rule_config("softmax", memory__learned_temperature=True))
    old, moved = (one.generator.params["memory_2"]["log_temperature"] for one in (state, new))
    np.testing.assert_allclose(jnp.exp(old), 0.5, rtol=1e-6)
    assert moved != old
    alone = build_networks(rule_config("softmax", memory__temperature=0.5)).generator
    taught = rule_config("softmax", memory__temperature=0.5, memory__learned_temperature=True)
    images = normalize_images(jnp.asarray(IMAGES))
    blocks = []
    for generator in (alone, build_networks(taught).generator):
        variables = jax.tree.map(lambda x: x, state.generator.variables)
        if generator is alone:
            del variables["params"]["memory_2"]["log_temperature"]
        blocks.append(generator.apply(variables, images, train=False)["reads"]["scale_2"].block)
    np.testing.assert_allclose(*blocks, rtol=1e-5, atol=1e-6)


def test_frozen_items_stay_and_the_rest_learns():
    config = rule_config("threshold", memory__frozen=True, train__average_decay=0.9)
    state, new, _ = one_step(config, steps=2)
    old, moved = state.generator.params, new.generator.params
    start = old["memory_2"]["memory_items"]
    np.testing.assert_array_equal(start, moved["memory_2"]["memory_items"])
    averaged = new.average[0]["params"]["memory_2"]["memory_items"]
    np.testing.assert_allclose(averaged, start, rtol=1e-6)
    adam = new.generator.opt_state[0]
    for moments in (adam.mu, adam.nu):
        assert not np.any(moments["memory_2"]["memory_items"])
    optimizer, params = build_optimizer(config), old["memory_2"]
    nothing, _ = optimizer.update(0.0 * start, optimizer.init(start), params["memory_items"])
    assert not np.any(nothing)  # no weight decay
    assert np.any(old["decoder_1"]["kernel"] != moved["decoder_1"]["kernel"])
    _, free, _ = one_step(rule_config("threshold"))
    assert np.any(start != free.generator.params["memory_2"]["memory_items"])


@pytest.mark.parametrize(
    ("rule", "learned"), [("product_key", "subkeys"), ("entmax", "alpha_logit")]
)
def test_what_a_rule_learns_beside_the_items_learns(rule, learned):
    state, new, _ = one_step(rule_config(rule, memory__learned_alpha=True))
    old, moved = (one.generator.params["memory_2"]["rule"][learned] for one in (state, new))
    assert np.all(old != moved)


def test_frozen_items_of_rules_with_losses_and_state_stay():
    for rule in ("nearest", "gumbel", "hard_shrinkage"):
        state, new, _ = one_step(rule_config(rule, memory__frozen=True))
        old, moved = (one.generator.params["memory_2"]["memory_items"] for one in (state, new))
        np.testing.assert_array_equal(old, moved)


def test_the_mean_item_is_read_by_every_block():
    config = rule_config("mean")
    generator = build_networks(config).generator
    images = normalize_images(jnp.asarray(IMAGES))
    variables = generator.init(KEY, images, train=True)
    blocks = generator.apply(variables, images, train=False)["reads"]["scale_2"].block
    mean = variables["params"]["memory_2"]["memory_items"].mean(0)
    np.testing.assert_allclose(blocks, np.broadcast_to(mean, blocks.shape), rtol=1e-4, atol=1e-6)


def test_items_that_are_state_count_as_memory():
    state, _, _ = one_step(rule_config("mnad"))
    assert count_parameters(state)["memory"] == 9 * 32


def test_perplexity_is_the_number_of_items_in_even_use():
    assert memory.perplexity(jnp.zeros(4)) == 0
    np.testing.assert_allclose(memory.perplexity(jnp.array([2.0, 2.0, 0, 2.0])), 3.0, rtol=1e-5)


def test_noise_follows_the_step_and_evaluation_has_none():
    config = rule_config("gumbel")
    generator = build_networks(config).generator
    images = normalize_images(jnp.asarray(IMAGES))
    variables = generator.init(KEY, images, train=True)

    def read(train, seed):
        rngs = {"memory": jax.random.key(seed)}
        options = {"mutable": ["batch_stats", "memory"], "rngs": rngs}
        return generator.apply(variables, images, train=train, **options)[0]["reads"][
            "scale_2"
        ].block

    assert np.any(read(True, 0) != read(True, 1))
    np.testing.assert_array_equal(read(False, 0), read(False, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"addressing": "product_key", "items": 8}, "memory.items: 8 is not a square"),
        ({"addressing": "top_k", "top_k": 99}, "memory.top_k: 99 is more than memory.items"),
        ({"addressing": "mnad", "frozen": True}, "memory.frozen: 'mnad' moves the items"),
        ({"addressing": "softmax", "test_update": 0.1}, "memory.test_update: only 'mnad'"),
        ({"banks": "some"}, "memory.banks: 'some' is not 'one'"),
        ({"banks": "3x1"}, "memory.banks: 3x1 does not divide the 2 x 2 blocks of scale 1"),
        ({"similarity": "cos"}, "memory.similarity: no 'cos'; did you mean 'cosine'"),
        ({"alpha": 1.0}, "memory.alpha: 1.0 must lie from 1.01 to 2"),
        (
            {"addressing": "entmax", "alpha": 2.0, "learned_alpha": True},
            "memory.alpha: 2.0 must be above 1.01 and below 2",
        ),
        ({"cut": -1.0}, "memory.cut: -1.0"),
        ({"cut": 8.5}, "memory.cut: 8.5 / 8 is more than any weight"),
        (
            {"addressing": "mnad", "test_update": 0.1, "scales": "none"},
            "memory.test_update: memory.scales='none' leaves no items",
        ),
        (
            {"addressing": "entmax", "alpha": 1.01, "learned_alpha": True},
            "memory.alpha: 1.01 must be above 1.01",
        ),
        ({"retrieval_steps": 0}, "memory.retrieval_steps: 0 must lie"),
        ({"ema_decay": 1.0}, "memory.ema_decay"),
        ({"gumbel_end": 0.0}, "memory.gumbel_end"),
        ({"entropy_weight": -1.0}, "memory.entropy_weight"),
    ],
)
def test_values_that_cannot_work_are_named(values, message):
    config = tiny_config("daad")
    for name, value in values.items():
        config_lib.set_field(config, f"memory.{name}", value)
    with pytest.raises(ConfigError, match=message):
        config_lib.validate(config)


def test_a_block_that_cannot_be_halved_is_named():
    config = tiny_config("daad", memory__addressing="product_key", memory__items=9)
    config.model.widths, config.memory.division_rates = (3, 7), "pixel"
    with pytest.raises(
        ConfigError, match="'product_key' halves a block, and those of scale 1 have 3"
    ):
        config_lib.validate(config)


def test_hyperparameters_are_the_configs_own_defaults():
    fields = {
        name: getattr(config_lib.MemoryConfig(), name) for name in addressing.DEFAULTS._fields
    }
    assert fields == addressing.DEFAULTS._asdict()


def test_noise_is_drawn_anew_at_each_step_and_for_each_run():
    flips = {"data__flip_horizontal": False, "data__flip_vertical": False}
    config = rule_config("gumbel", **flips)
    state, _, first = one_step(config)
    networks, optimizer = build_networks(config), build_optimizer(config)
    step = jax.jit(functools.partial(train_step, networks, optimizer, step_spec(config)))
    later = step(dataclasses.replace(state, step=state.step + 1), IMAGES, KEY)[1]
    other = step(state, IMAGES, jax.random.key(1))[1]
    name = "memory/scale_2/largest_weight"
    assert len({float(metrics[name]) for metrics in (first, later, other)}) == 3
    assert step(state, IMAGES, KEY)[1][name] == first[name]
