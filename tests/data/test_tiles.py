"""Tiles of pictures: where they lie, how they are read, and that they join without seams."""

import numpy as np
import pytest

from daad_jax.config import DataConfig
from daad_jax.data.tiles import Tiles, cut, tiling

RNG = np.random.default_rng(0)


def tiles_of(picture, tile, overlap=0.25):
    return tiling(DataConfig(image_size=picture, tile=tile, tile_overlap=overlap))


@pytest.mark.parametrize("tile", [0, 64, (64, 64)])
def test_pictures_of_one_tile_are_not_cut(tile):
    images = np.zeros((2, 64, 64, 1), np.uint8)
    assert cut(images, DataConfig(image_size=64, tile=tile)) is images


@pytest.mark.parametrize(
    ("picture", "tile", "overlap", "rows", "columns"),
    [
        ((64, 64), 32, 0.0, (0, 32), (0, 32)),
        ((64, 32), 32, 0.25, (0, 16, 32), (0,)),
        ((100, 64), (32, 64), 0.25, (0, 23, 45, 68), (0,)),
        ((1024, 1024), 256, 0.25, (0, 192, 384, 576, 768), (0, 192, 384, 576, 768)),
    ],
)
def test_tiles_cover_the_picture_evenly(picture, tile, overlap, rows, columns):
    found = tiles_of(picture, tile, overlap)
    assert (found.rows, found.columns) == (rows, columns)


@pytest.mark.parametrize(
    ("picture", "tile", "overlap"), [((37, 50), (16, 12), 0.5), ((48, 32), 16, 0.0)]
)
def test_maps_of_tiles_join_to_the_map_of_the_picture(picture, tile, overlap):
    images = RNG.normal(size=(2, *picture, 3))
    found = tiles_of(picture, tile, overlap)
    tiles = Tiles(images, found)
    count = len(found.corners)
    assert tiles.shape == (2 * count, *found.tile, 3)
    assert len(tiles) == len(tiles[:]) == 2 * count
    np.testing.assert_allclose(found.blend(tiles[count:]), images[1], rtol=1e-12)
    np.testing.assert_array_equal(tiles[np.array([count + 1, 0])], tiles[:][[count + 1, 0]])
    np.testing.assert_array_equal(tiles[::3], tiles[:][::3])


def test_there_is_no_step_where_tiles_meet():
    found = tiles_of((16, 112), 16, 0.5)
    heights = np.arange(len(found.corners), dtype=float)[:, None, None]
    joined = found.blend(np.broadcast_to(heights, (len(heights), 16, 16)))
    assert np.abs(np.diff(joined, axis=1)).max() <= 1 / 8 + 1e-9
