import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax import evaluation, scoring, sharding
from daad_jax.memory import item_usage
from daad_jax.scoring import MemoryUse
from daad_jax.state import build_networks, build_optimizer, init_state
from daad_jax.step import normalize_images


def test_item_usage_matches_numpy_and_leaves_padding_out():
    rng = np.random.default_rng(0)
    weights = np.maximum(rng.normal(size=(4, 5, 6)), 0).astype(np.float32)
    usage = jax.jit(item_usage)(weights, jnp.array([1.0, 0.0, 1.0, 1.0]))
    kept = weights[[0, 2, 3]]
    np.testing.assert_array_equal(usage.reads, (kept > 0).sum((0, 1)))
    np.testing.assert_allclose(usage.weight, kept.sum((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("setting", ["ae", "daad"])
def test_scorer_adds_up_usage_over_padded_batches(setting):
    config = config_lib.from_setting(setting)
    config.data.image_size, config.data.channels = 16, 1
    config.model.widths = (4, 8)
    config.memory.items, config.memory.temperature = 32, 0.02
    config.memory.division_rates = (2, 2, 1)
    config.score.batch_size = 4
    images = np.random.default_rng(1).integers(0, 255, (6, 16, 16, 1), dtype=np.uint8)
    networks = build_networks(config)
    pixels = normalize_images(jnp.asarray(images))
    init = functools.partial(init_state, networks, build_optimizer(config))
    state = jax.jit(init)(jax.random.key(0), pixels)
    mesh = sharding.make_mesh(jax.devices()[:1])
    usage = scoring.Scorer(config, state, mesh).usage(images)
    apply = functools.partial(networks.generator.apply, train=False, return_weights=True)
    generated = jax.jit(apply)(state.generator.variables, pixels)
    assert (
        usage.keys()
        == generated["reads"].keys()
        == ({"scale_1", "scale_2"} if setting == "daad" else set())
    )
    for scale, read in generated["reads"].items():
        weights = np.asarray(read.weights, np.float64)
        np.testing.assert_array_equal(usage[scale].reads, (weights > 0).sum((0, 1)))
        np.testing.assert_allclose(usage[scale].weight, weights.sum((0, 1)), rtol=1e-4)
        assert usage[scale].blocks == 6 * 4
        assert usage[scale].active_items == (weights > 0).sum()
        np.testing.assert_allclose(usage[scale].entropy, read.summary.entropy.sum(), rtol=1e-4)
        assert usage[scale].dead_reads == read.summary.dead.sum()


def test_summarize_usage_counts_dead_items():
    usage = {
        "scale_1": MemoryUse(
            np.array([5.0, 5.0, 0.0, 0.0]), np.array([2.0, 2.0, 0.0, 0.0]), 12.0, 10.0, 3.0, 7.0
        ),
        "scale_2": MemoryUse(np.zeros(4), np.zeros(4), 12.0, 0.0, 0.0, 12.0),
    }
    summary = evaluation.summarize_usage(usage, images=3)
    expected = {"images": 3, "items": 4, "items_read": 2, "never_read": 2, "effective_items": 2.0}
    expected |= {"active_items": 10 / 12, "entropy": 0.25, "reads": 12, "dead_reads": 7}
    assert summary["scale_1"] == pytest.approx(expected)
    assert summary["scale_2"]["never_read"] == 4
    assert summary["scale_2"]["effective_items"] == 0.0
