"""What blocks read, the training blocks behind items, and items as pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax import diagnostics, partition, scoring, sharding
from daad_jax.diagnostics import pairwise_cosine
from daad_jax.state import build_networks, build_optimizer, init_state
from daad_jax.step import normalize_images
from tests.conftest import tiny_config

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 1), dtype=np.uint8)


@functools.cache
def make(**overrides):
    """A scorer at step 0, its features and reads of `IMAGES`, and its spec of scale 1."""
    config = tiny_config("daad", score__batch_size=4, **overrides)
    config_lib.validate(config)
    networks = build_networks(config)
    init = functools.partial(init_state, networks, build_optimizer(config))
    pixels = normalize_images(jnp.asarray(IMAGES))
    state = jax.jit(init)(jax.random.key(3), pixels)
    apply = functools.partial(networks.generator.apply, train=False, return_weights=True)
    generated = jax.jit(apply)(state.generator.variables, pixels)
    scorer = scoring.Scorer(config, state, sharding.make_mesh(jax.devices()[:1]))
    return scorer, generated, networks.generator.memories[0]


@pytest.mark.parametrize("banks", ["one", "1x2", "position"])
def test_nearest_blocks_are_found_by_looking_at_all(banks):
    scorer, generated, spec = make(memory__banks=banks, memory__similarity="distance")
    found = diagnostics.nearest_blocks(scorer, IMAGES)["scale_1"]
    queries = np.asarray(partition.divide(generated["features"][0], spec.rates), np.float64)
    items = diagnostics.memory_items(scorer)["scale_1"]
    banked = {"one": [[0, 1, 2, 3]], "1x2": [[0, 2], [1, 3]], "position": [[0], [1], [2], [3]]}
    assert len(found.image) == len(banked[banks]) * 8
    for bank, blocks in enumerate(banked[banks]):
        for item in range(8):
            error = ((queries[:, blocks] - items[bank, item]) ** 2).sum(-1)
            image, place = np.unravel_index(error.argmin(), error.shape)
            index = bank * 8 + item
            assert (found.image[index], found.block[index]) == (image, blocks[place])
            np.testing.assert_allclose(-found.similarity[index], error.min(), rtol=1e-3)


@pytest.mark.parametrize("banks", ["one", "position"])
def test_block_reads_are_the_largest_weights(banks):
    scorer, generated, _ = make(memory__banks=banks)
    reads = diagnostics.block_reads(scorer, IMAGES, 2)["scale_1"]
    weights = np.asarray(generated["reads"]["scale_1"].weights)
    offsets = 8 * np.arange(4)[None] * (banks == "position")
    np.testing.assert_array_equal(reads.items[..., 0], weights.argmax(-1) + offsets)
    np.testing.assert_allclose(reads.weights, np.sort(weights)[..., :-3:-1], rtol=1e-5)


def test_pairwise_cosine_is_numpys():
    items = np.random.default_rng(1).normal(size=(2, 5, 4))
    values = []
    for bank in items:
        for i in range(5):
            for j in range(i):
                a, b = bank[i], bank[j]
                values.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    expected = {"cosine_mean": np.mean(values), "cosine_largest": np.max(values)}
    assert pairwise_cosine(items) == pytest.approx(expected)
    assert pairwise_cosine(items[:, :1]) == {"cosine_mean": 0.0, "cosine_largest": 0.0}


@pytest.mark.parametrize("overrides", [{}, {"memory__banks": "position"}])
def test_decoded_items_are_maps_made_of_them(overrides):
    scorer, generated, spec = make(**overrides)
    chosen = np.array([5, 2])
    pictures = diagnostics.decode_items(scorer, IMAGES, {"scale_1": chosen})["scale_1"]
    assert pictures.shape == (2, 16, 16, 1)
    items = diagnostics.memory_items(scorer)["scale_1"]
    blocks = jnp.stack([jnp.asarray(items[block % len(items), 2]) for block in range(4)])
    made = partition.assemble(blocks[None], generated["features"][0].shape, spec.rates)
    other = jnp.mean(generated["assembled"][1], axis=0)[None]
    expected = scorer.networks.generator.apply(
        scorer.state.generator.variables,
        jnp.zeros((1, 16, 16, 1)),
        train=False,
        edit=lambda _: [made, other],
    )["reconstruction"]
    np.testing.assert_allclose(pictures[1], expected[0], atol=1e-5)


def test_items_that_are_state_are_found():
    scorer, _, _ = make(memory__addressing="mnad")
    items = diagnostics.memory_items(scorer)["scale_2"]
    np.testing.assert_allclose(np.linalg.norm(items, axis=-1), 1.0, rtol=1e-5)


def test_the_update_at_evaluation_follows_the_order_and_not_the_batches():
    frozen, _, _ = make(memory__addressing="mnad")
    scorer, _, _ = make(memory__addressing="mnad", memory__test_update=10.0)
    config = tiny_config("daad", score__batch_size=3, memory__addressing="mnad")
    config.memory.test_update = 10.0
    other = scoring.Scorer(config, scorer.state, sharding.make_mesh(jax.devices()[:1]))
    plain, updated = frozen(IMAGES), scorer(IMAGES)
    first, last = updated.reconstruction_score[0], updated.reconstruction_score[-1]
    np.testing.assert_allclose(first, plain.reconstruction_score[0], rtol=1e-5)
    assert abs(last - plain.reconstruction_score[-1]) > 1e-7
    np.testing.assert_allclose(other(IMAGES).anomaly_map, updated.anomaly_map, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(scorer(IMAGES).anomaly_map, updated.anomaly_map)
    shuffled = scorer(IMAGES[::-1]).reconstruction_score[::-1]
    assert np.abs(shuffled - updated.reconstruction_score).max() > 1e-7
    averaged = dataclasses.replace(scorer.state, average=scorer.state.variables)
    of_average = scoring.Scorer(config, averaged, sharding.make_mesh(jax.devices()[:1]))
    np.testing.assert_allclose(
        of_average(IMAGES).anomaly_map, updated.anomaly_map, rtol=1e-4, atol=1e-6
    )
    never, _, _ = make(memory__addressing="mnad", memory__test_update=1e-9)
    np.testing.assert_allclose(never(IMAGES).anomaly_map, plain.anomaly_map, rtol=1e-4, atol=1e-6)


def test_the_weighted_error_is_mnads():
    a, b = np.random.default_rng(2).uniform(-1, 1, (2, 6, 6, 3))
    distance = np.sqrt(((a - b) ** 2).sum(-1))
    weights = 1 - np.exp(-distance)
    got = jax.jit(scoring.weighted_error)(a, b)
    np.testing.assert_allclose(got, (weights * distance).sum() / weights.sum(), rtol=1e-5)
