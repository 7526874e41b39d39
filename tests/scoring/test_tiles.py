"""Scores of pictures in tiles, of padded pictures, and of pictures with an ignored region."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.scoring.scorer import Scorer
from tests.conftest import tiny_config

RNG = np.random.default_rng(0)
TILE = RNG.integers(0, 256, (16, 16, 1), dtype=np.uint8)
SCORES = ("reconstruction_score", "alignment_score")
MAPS = ("anomaly_map", "reconstruction")


class Grey(NamedTuple):
    """A generator that rebuilds every image in grey, so that its error is known."""

    reconstruction: jax.Array | None = None

    def apply(self, variables, images, *, train):
        del variables, train
        return Grey(jnp.zeros_like(images))


@pytest.fixture(scope="module")
def networks():
    """Untrained networks and their variables."""
    built = build_networks(tiny_config())
    pixels = normalize_images(jnp.asarray(RNG.integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)))
    init = jax.jit(lambda module, key: module.init(key, pixels, train=True), static_argnums=0)
    return built, tuple(init(module, jax.random.key(0)) for module in built)


def make(networks, **overrides):
    built, variables = networks
    config = tiny_config(**overrides)
    return Scorer(built, variables, config, sharding.make_mesh(jax.devices()[:1]))


def assert_same(one, two, **tolerance):
    for name in (*SCORES, *MAPS, "feature_map"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), **tolerance)


def test_a_picture_of_one_tile_scores_the_same_with_and_without_tiling(networks):
    assert_same(make(networks)(TILE[None]), make(networks, data__tile=16)(TILE[None]), rtol=0)


def test_every_cell_of_a_mosaic_has_the_same_map_and_the_score_of_its_picture(networks):
    mosaic = np.tile(TILE, (3, 2, 1))[None]
    tiled = make(networks, data__image_size=(48, 32), data__tile=16, data__tile_overlap=0.0)
    whole, one = tiled(mosaic), make(networks)(TILE[None])
    for name in MAPS:
        cells = getattr(whole, name).reshape(3, 16, 2, 16, -1).swapaxes(1, 2)
        np.testing.assert_allclose(
            cells, np.broadcast_to(getattr(one, name).reshape(16, 16, -1), cells.shape), atol=1e-6
        )
    for name in SCORES:
        np.testing.assert_allclose(getattr(whole, name), getattr(one, name), rtol=1e-5)


def test_a_defect_on_a_seam_scores_as_one_in_the_middle_of_a_tile():
    config = {"data__image_size": 80, "data__tile": 32}  # tiles at 0, 24 and 48, seams at 28 and 52
    scorer = make(((Grey(), None), ({}, None)), **config)

    def score(row, column):
        picture = np.full((1, 80, 80, 1), 127, np.uint8)
        picture[0, row - 2 : row + 2, column - 2 : column + 2] = 255
        raw = scorer(picture)
        return raw.reconstruction_score[0], raw.anomaly_map[0].max()

    middle = score(40, 40)
    for place in ((28, 40), (40, 52), (28, 28), (30, 50), (26, 40)):
        error, largest = score(*place)
        np.testing.assert_allclose(error, middle[0], rtol=1e-5)
        np.testing.assert_allclose(largest, middle[1], rtol=0.03)


def test_tiles_of_no_picture(networks):
    scorer = make(networks, data__image_size=(32, 16), data__tile=16)
    assert scorer(np.zeros((0, 32, 16, 1), np.uint8)).anomaly_map.shape == (0, 32, 16)


def left_out(images, *region):
    """The images with a channel that leaves a region out."""
    valid = np.full_like(images[..., :1], 255)
    valid[:, *region] = 0
    return np.concatenate([images, valid], axis=-1)


@pytest.mark.parametrize("options", [{}, {"data__image_size": (32, 16), "data__tile": 16}])
def test_where_all_pixels_count_scores_are_those_without_the_channel(networks, options):
    images = RNG.integers(0, 256, (2, *make(networks, **options)._data.picture_size, 1), np.uint8)
    scorer = make(networks, **options)
    assert_same(scorer(images), scorer(left_out(images, slice(0), slice(0))), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"data__image_size": (32, 16), "data__tile": 16}])
def test_pixels_that_do_not_count_have_no_part_in_scores_and_maps(options):
    scorer = make(((Grey(), None), ({}, None)), **options)
    images = RNG.integers(100, 156, (1, *scorer._data.picture_size, 1), dtype=np.uint8)
    region = np.s_[4:9, 3:12]
    images[:, *region] = 255  # the largest errors are there
    raw = scorer(left_out(images, *region))
    counts = np.ones(images.shape[1:3], bool)
    counts[region] = False
    np.testing.assert_array_equal(raw.valid[0], counts)
    error = np.square(images[0, ..., 0] / 127.5 - 1)
    np.testing.assert_allclose(raw.reconstruction_score, error[counts].mean(), rtol=1e-5)
    assert (raw.anomaly_map[0][~counts] == 0).all()
    assert raw.anomaly_map.max() < error[counts].max()
    assert raw.anomaly_map[0][counts].min() > 0
    light = np.log([images[0][counts].mean() + 1, images[0][counts].std() + 1])
    np.testing.assert_allclose(raw.light[0], light)
