"""How the use of memory items is summed up and summarised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.addressing import ItemUsage, ReadSummary
from daad_jax.evaluation import evaluate as evaluation
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.scoring.scorer import MemoryUse, Scorer
from tests.conftest import tiny_config


@pytest.mark.parametrize("setting", ["ae", "daad"])
def test_the_scorer_sums_the_use_over_padded_batches(setting):
    config = tiny_config(setting, memory__items=32, memory__temperature=0.02, score__batch_size=4)
    images = np.random.default_rng(1).integers(0, 255, (6, 16, 16, 1), dtype=np.uint8)
    networks = build_networks(config)
    pixels = normalize_images(jnp.asarray(images))
    init = functools.partial(networks.generator.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), pixels)
    mesh = sharding.make_mesh(jax.devices()[:1])
    usage = Scorer(networks, (variables, None), config, mesh).memory_use(images)
    apply = functools.partial(networks.generator.apply, train=False, return_weights=True)
    output = jax.jit(apply)(variables, pixels)
    assert (
        usage.keys()
        == output.reads.keys()
        == ({"scale_1", "scale_2"} if setting == "daad" else set())
    )
    for scale, read in output.reads.items():
        weights = np.asarray(read.weights, np.float64)
        items, reads, summary = usage[scale]
        np.testing.assert_array_equal(items.reads, (weights > 0).sum((0, 1)))
        np.testing.assert_allclose(items.weight, weights.sum((0, 1)), rtol=1e-4)
        assert reads == 6 * 4
        assert summary.active_items == (weights > 0).sum()
        np.testing.assert_allclose(summary.entropy, read.summary.entropy.sum(), rtol=1e-4)
        assert summary.dead == read.summary.dead.sum()


def test_the_summary_counts_items_that_are_never_read():
    usage = ItemUsage(np.array([5.0, 5.0, 0.0, 0.0]), np.array([2.0, 2.0, 0.0, 0.0]))
    half = MemoryUse(usage, 12.0, ReadSummary(10.0, 1.0, 3.0, 7.0))
    expected = {"images": 3, "items": 4, "items_read": 2, "never_read": 2, "effective_items": 2.0}
    expected |= {"active_items": 10 / 12, "entropy": 0.25, "reads": 12, "dead_reads": 7}
    assert evaluation.summarize_use(half, images=3) == pytest.approx(expected)
    usage = ItemUsage(np.zeros(4), np.zeros(4))
    none = evaluation.summarize_use(MemoryUse(usage, 12.0, ReadSummary(0.0, 0.0, 0.0, 12.0)), 3)
    assert (none["never_read"], none["effective_items"]) == (4, 0.0)
