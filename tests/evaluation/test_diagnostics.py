"""What blocks read, the training blocks behind items, and items as pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.evaluation import diagnostics
from daad_jax.evaluation.diagnostics import pairwise_cosine
from daad_jax.models import blocks
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.scoring.scorer import Scorer
from tests.conftest import tiny_config

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 1), dtype=np.uint8)


@functools.cache
def make(**overrides):
    """Untrained networks: their scorer, their output for `IMAGES`, and the memory of scale 1."""
    config = tiny_config("daad", score__batch_size=4, **overrides)
    generator = build_networks(config).generator
    pixels = normalize_images(jnp.asarray(IMAGES))
    variables = jax.jit(functools.partial(generator.init, train=False))(jax.random.key(3), pixels)
    apply = functools.partial(generator.apply, train=False, return_weights=True)
    scorer = Scorer(
        build_networks(config),
        (variables, None),
        config,
        sharding.make_mesh(jax.devices()[:1]),
    )
    return scorer, jax.jit(apply)(variables, pixels), generator.memories[0]


@pytest.mark.slow
@pytest.mark.parametrize("banks", ["one", "1x2", "position"])
def test_nearest_blocks_are_found_by_looking_at_all(banks):
    scorer, output, memory = make(memory__banks=banks, memory__similarity="distance")
    found = diagnostics.nearest_blocks(scorer, IMAGES)["scale_1"]
    queries = np.asarray(blocks.divide(output.features[0], memory.rates), np.float64)
    items = diagnostics.memory_items(scorer)["scale_1"]
    banked = {"one": [[0, 1, 2, 3]], "1x2": [[0, 2], [1, 3]], "position": [[0], [1], [2], [3]]}
    assert len(found.image) == len(banked[banks]) * 8
    for bank, places in enumerate(banked[banks]):
        for item in range(8):
            error = ((queries[:, places] - items[bank, item]) ** 2).sum(-1)
            image, place = np.unravel_index(error.argmin(), error.shape)
            index = bank * 8 + item
            assert (found.image[index], found.block[index]) == (image, places[place])
            np.testing.assert_allclose(-found.similarity[index], error.min(), rtol=1e-3)


@pytest.mark.parametrize("banks", ["one", "position"])
def test_block_reads_are_the_largest_weights(banks):
    scorer, output, _ = make(memory__banks=banks)
    reads = diagnostics.block_reads(scorer, IMAGES, 2)["scale_1"]
    weights = np.asarray(output.reads["scale_1"].weights)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [{}, {"memory__banks": "position"}, {"model__query_from": "before"}]
)
def test_decoded_items_are_maps_made_of_one_item(overrides):
    scorer, output, memory = make(**overrides)
    chosen = np.array([5, 2])
    pictures = diagnostics.decode_items(scorer, IMAGES, {"scale_1": chosen})["scale_1"]
    assert pictures.shape == (2, 16, 16, 1)
    items = diagnostics.memory_items(scorer)["scale_1"]
    read = jnp.stack([jnp.asarray(items[block % len(items), 2]) for block in range(4)])
    made = blocks.assemble(read[None], output.features[0].shape, memory.rates)
    other = jnp.mean(output.assembled[1], axis=0)[None]
    decode = functools.partial(scorer.networks.generator.apply, train=False, method="decode")
    np.testing.assert_allclose(
        pictures[1], decode(scorer.variables[0], [made, other])[0], atol=1e-5
    )


def test_items_that_are_state_are_found():
    scorer, _, _ = make(memory__addressing="mnad")
    items = diagnostics.memory_items(scorer)["scale_2"]
    np.testing.assert_allclose(np.linalg.norm(items, axis=-1), 1.0, rtol=1e-5)


def test_under_bfloat16_the_nearest_blocks_are_those_of_the_reads():
    scorer, output, memory = make(model__compute_dtype="bfloat16")
    found = diagnostics.nearest_blocks(scorer, IMAGES)["scale_1"]
    queries = np.asarray(memory.queries(output.features[0]), np.float64)
    items = diagnostics.memory_items(scorer)["scale_1"][0].astype(np.float64)
    lengths = np.linalg.norm(queries, axis=-1)[..., None] * np.linalg.norm(items, axis=-1)
    cosines = queries @ items.T / lengths
    np.testing.assert_allclose(found.similarity, cosines.max(axis=(0, 1)), rtol=1e-6)
