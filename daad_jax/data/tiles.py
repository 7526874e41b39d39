"""Cuts large pictures into overlapping tiles, and puts maps of tiles together without seams."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from daad_jax.config import DataConfig


class Tiling(NamedTuple):
    """The tiles of a picture, row by row; hashable.

    `tile` is the height and width of a tile. `rows` and `columns` are the top and left edges,
    evenly spaced from one border of the picture to the other. `overlap` are the rows and columns
    that neighbours share at least.
    """

    tile: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    overlap: tuple[int, int]

    @property
    def corners(self) -> np.ndarray:
        """Top and left edge of each of t tiles, int ``(t, 2)``."""
        return np.array([(top, left) for top in self.rows for left in self.columns])

    def blend(self, maps: Any) -> Any:
        """Puts maps ``(t, h, w, ...)`` of the tiles of one picture together: ``(H, W, ...)``.

        Where tiles overlap, the result is their weighted mean. The weight falls linearly towards
        the edge of a tile, so there is no seam. Takes NumPy or JAX arrays.
        """
        edges = zip((self.rows, self.columns), self.tile, strict=True)
        shape = [places[-1] + side for places, side in edges]
        extra = (1,) * (maps.ndim - 3)
        ramps = [_ramp(*pair) for pair in zip(self.tile, self.overlap, strict=True)]
        weight = np.outer(*ramps).astype(maps.dtype)
        total = maps.__array_namespace__().zeros((*shape, *maps.shape[3:]), maps.dtype)
        weights = np.zeros((*shape, *extra), maps.dtype)
        shaped = weight.reshape(*weight.shape, *extra)
        for index, (top, left) in enumerate(self.corners):
            region = slice(top, top + self.tile[0]), slice(left, left + self.tile[1])
            weights[region] += shaped
            if isinstance(total, np.ndarray):
                total[region] += shaped * maps[index]
            else:
                total = total.at[region].add(shaped * maps[index])
        return total / weights


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The tiles of n pictures as if they were one array of n t images, cut when they are read."""

    images: np.ndarray
    tiling: Tiling

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n t, h, w, C)``."""
        return (len(self), *self.tiling.tile, self.images.shape[-1])

    def __len__(self) -> int:
        return len(self.images) * len(self.tiling.corners)

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures."""
        return self.images.nbytes

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Picture, top and left edge of the tiles at some indices, int32 ``(m, 3)``."""
        corners = self.tiling.corners
        picture, number = np.divmod(indices, len(corners))
        return np.column_stack([picture, corners[number]]).astype(np.int32)

    def __getitem__(self, indices: np.ndarray | slice) -> np.ndarray:
        """Cuts the tiles at indices ``(m,)`` or of a slice, ``(m, h, w, C)``."""
        height, width = self.tiling.tile
        if isinstance(indices, slice):
            indices = np.arange(len(self))[indices]
        result = np.empty((len(indices), *self.shape[1:]), self.images.dtype)
        for at, (picture, top, left) in enumerate(self.places(indices)):
            result[at] = self.images[picture, top : top + height, left : left + width]
        return result


def tiling(config: DataConfig) -> Tiling | None:
    """The tiling of a config; None if the networks take whole pictures."""
    tile, picture = config.network_size, config.picture_size
    if tile == picture:
        return None
    overlap = [round(config.tile_overlap * side) for side in tile]
    rows, columns = (_edges(*one) for one in zip(picture, tile, overlap, strict=True))
    return Tiling(tile, rows, columns, (overlap[0], overlap[1]))


def cut(images: np.ndarray, config: DataConfig) -> np.ndarray | Tiles:
    """The images ``(n, H, W, C)`` that the networks take: the pictures, or their tiles."""
    parts = tiling(config)
    return images if parts is None else Tiles(images, parts)


def _edges(picture: int, tile: int, overlap: int) -> tuple[int, ...]:
    count = math.ceil((picture - overlap) / (tile - overlap))
    return tuple(np.rint(np.linspace(0, picture - tile, count)).astype(int).tolist())


def _ramp(side: int, overlap: int) -> np.ndarray:
    """Weights along a side: 1 in the middle, falling to nearly 0 over the overlap."""
    to_edge = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    return np.minimum(to_edge / max(overlap, 0.5), 1.0)
