"""Where a picture lies in the frame of `data.image_size`, and which of its pixels count.

With ``data.fit="pad"`` or `data.ignore`, images get one channel more than colours, as a picture may
have an alpha channel: 255 where a pixel counts, and 0 in the padding and in the ignored region.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from daad_jax.config import DataConfig

FILTERS = {
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_TINY = 1e-6  # of a pixel, or of a filter's weight


class Box(NamedTuple):
    """The part of a frame that a picture fills, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def region(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array ``(H, W, ...)`` with."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


def input_shape(config: DataConfig) -> tuple[int, int, int]:
    """``(H, W, C)`` of prepared images, with the channel that says which pixels count."""
    return (*config.picture_size, config.channels + config.has_validity)


def picture_box(picture: tuple[int, int], config: DataConfig) -> Box:
    """Where a picture of some height and width lies in the frame.

    It fills the frame or, with ``data.fit="pad"``, as much as its aspect ratio allows, centred.
    """
    height, width = config.picture_size
    if config.fit == "stretch":
        return Box(0, 0, height, width)
    scale = min(height / picture[0], width / picture[1])
    inner = [max(1, round(side * scale)) for side in picture]
    return Box((height - inner[0]) // 2, (width - inner[1]) // 2, *inner)


def in_boxes(
    picture: tuple[int, int], boxes: list[tuple[float, float, float, float]]
) -> np.ndarray:
    """The pixels of a picture of some height and width that boxes touch, bool ``(H, W)``.

    A box is x, y, width and height in fractions of the picture.
    """
    inside, (rows, columns) = np.zeros(picture, bool), picture
    for x, y, width, height in boxes:
        top, bottom = np.floor(y * rows + _TINY), np.ceil((y + height) * rows - _TINY)
        left, right = np.floor(x * columns + _TINY), np.ceil((x + width) * columns - _TINY)
        inside[int(top) : int(bottom), int(left) : int(right)] = True
    return inside


def untouched(ignored: np.ndarray, box: Box, resize: str) -> np.ndarray:
    """The pixels of a resized picture into which its filter takes nothing of an ignored region.

    `ignored` is bool ``(H, W)`` of the original picture, and `resize` is `data.resize`. Returns
    bool of the height and width of `box`.
    """
    image = Image.fromarray(ignored.astype(np.float32))
    shares = np.asarray(image.resize((box.width, box.height), FILTERS[resize]))
    return np.asarray(np.abs(shares) < _TINY)
