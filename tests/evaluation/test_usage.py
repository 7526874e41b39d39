"""How the use of memory items is summed up and summarised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.evaluation import evaluate as evaluation
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.scoring.scorer import MemoryUse, Scorer
from tests.conftest import tiny_config


@pytest.mark.parametrize("setting", ["ae", "daad"])
def test_the_scorer_sums_the_use_over_padded_batches(setting):
    config = tiny_config(setting, memory__items=32, memory__temperature=0.02)
    images = np.random.default_rng(1).integers(0, 255, (6, 16, 16, 1), dtype=np.uint8)
    networks = build_networks(config)
    pixels = normalize_images(jnp.asarray(images))
    init = functools.partial(networks.generator.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), pixels)
    mesh = sharding.make_mesh(jax.devices()[:1])
    form = {"image_shape": (16, 16, 1), "map_sigma": 1.0, "batch_size": 4, "mesh": mesh}
    usage = Scorer(networks, (variables, None), **form).memory_use(images)
    apply = functools.partial(networks.generator.apply, train=False, return_weights=True)
    output = jax.jit(apply)(variables, pixels)
    assert (
        usage.keys()
        == output.reads.keys()
        == ({"scale_1", "scale_2"} if setting == "daad" else set())
    )
    for scale, read in output.reads.items():
        weights = np.asarray(read.weights, np.float64)
        np.testing.assert_array_equal(usage[scale].reads, (weights > 0).sum((0, 1)))
        np.testing.assert_allclose(usage[scale].weight, weights.sum((0, 1)), rtol=1e-4)
        assert usage[scale].blocks == 6 * 4
        assert usage[scale].active_items == (weights > 0).sum()
        np.testing.assert_allclose(usage[scale].entropy, read.summary.entropy.sum(), rtol=1e-4)
        assert usage[scale].dead_reads == read.summary.dead.sum()


def test_the_summary_counts_items_that_are_never_read():
    half = MemoryUse(
        np.array([5.0, 5.0, 0.0, 0.0]), np.array([2.0, 2.0, 0.0, 0.0]), 12.0, 10.0, 3.0, 7.0
    )
    expected = {"images": 3, "items": 4, "items_read": 2, "never_read": 2, "effective_items": 2.0}
    expected |= {"active_items": 10 / 12, "entropy": 0.25, "reads": 12, "dead_reads": 7}
    assert evaluation.summarize_use(half, images=3) == pytest.approx(expected)
    none = evaluation.summarize_use(MemoryUse(np.zeros(4), np.zeros(4), 12.0, 0.0, 0.0, 12.0), 3)
    assert (none["never_read"], none["effective_items"]) == (4, 0.0)
