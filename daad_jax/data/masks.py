"""Decodes ground-truth masks: which pixels of a file are defective, and of which resized pixels."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from daad_jax.data import containers
from daad_jax.data.pictures import (
    Picture,
    has_alpha,
    open_picture,
    over_black,
    to_mode,
    to_rgba,
    wide_colour,
    wide_grey,
)
from daad_jax.errors import BadFileError

EMPTY = "{} mask(s) of defective images show no defect"
KINDS = "{} mask(s) have more than two values; every value above the lowest is a defect"
FRINGED = "{} mask(s) have grey edges; values below half of the largest of a defect do not count"
_MOST_KINDS = 15  # whole numbers up to this are kinds of defects
_NOISE = 1 / 8  # of the largest value: left by a lossy format that a mask went through
_LUMINANCE = np.array([299, 587, 114])
_WHOLE = 1000  # the sum of these

Note = Callable[[str, str], None]


class PackedMask:
    """A mask at its own size in a few hundred bytes; ``numpy.asarray`` gives it, bool ``(h, w)``.

    `shape` is its height and width.
    """

    def __init__(self, mask: np.ndarray) -> None:
        """Packs a mask, bool ``(h, w)``."""
        self.shape: tuple[int, ...] = mask.shape
        self._bits = zlib.compress(np.packbits(mask).tobytes(), 1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Unpacks the mask."""
        bits = np.frombuffer(zlib.decompress(self._bits), np.uint8)
        mask = np.unpackbits(bits, count=self.shape[0] * self.shape[1]).astype(dtype or bool)
        return mask.reshape(self.shape)


def decode_mask(
    content: bytes,
    name: str,
    *,
    picture: tuple[int, int] | None = None,
    note: Note | None = None,
) -> np.ndarray:
    """Decodes one mask.

    Of two values the higher one is a defect, whatever the mode of the file. Of more values, `note`
    is called with the file's name and what is done.

    Args:
        content: the bytes of a PNG, JPEG, BMP, TIFF or WebP file.
        name: the file's name for messages.
        picture: width and height that the mask must have.
        note: called with a sentence and `name` for what a user should know of.

    Returns:
        Bool ``(h, w)``, at the size of the upright mask.

    Raises:
        BadFileError: if the bytes are not a complete image, or it has another size.
    """
    opened = open_picture(content, name)
    try:
        levels = _levels(content, name, opened)
    except (ValueError, OSError) as error:
        reason = f"has colours that cannot be converted ({opened.image.mode}); convert or remove it"
        raise BadFileError(name, reason) from error
    defective, told = _threshold(levels, content.startswith(b"\xff\xd8"))
    upright = opened.upright(Image.fromarray(defective.astype(np.uint8)))
    if picture is not None and upright.size != picture:
        shapes = " and its image ".join(
            "{} x {}".format(*shape) for shape in (upright.size, picture)
        )
        raise BadFileError(name, f"is {shapes} pixels; give the mask the size of its image")
    if note and told:
        note(told, name)
    if note and containers.further_frames(content):
        note(containers.FURTHER, name)
    return np.asarray(upright).astype(bool)


def shrink(defective: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes a mask, bool ``(H, W)``, to a shape ``(h, w)``.

    A new pixel is defective if at least half of it is. A defect, that is pixels that touch, of
    which that leaves nothing keeps the pixels that it covers most: those with at least half of its
    largest share.
    """
    image = Image.fromarray(defective.astype(np.uint8) * 255)
    result = np.array(image.resize(shape[::-1], Image.Resampling.BOX)) >= 128
    defects, count = ndimage.label(defective, np.ones((3, 3)))
    rows, columns = np.nonzero(defective)
    height, width = defective.shape
    places = rows * shape[0] // height * shape[1] + columns * shape[1] // width
    pairs, shares = np.unique(
        np.stack([defects[rows, columns], places]), axis=1, return_counts=True
    )
    largest, kept = np.zeros(count + 1, int), np.zeros(count + 1, bool)
    np.maximum.at(largest, pairs[0], shares)
    np.logical_or.at(kept, pairs[0], result.ravel()[pairs[1]])
    chosen = ~kept[pairs[0]] & (2 * shares >= largest[pairs[0]])
    result.ravel()[pairs[1][chosen]] = True
    return result


def _threshold(levels: np.ndarray, is_lossy: bool) -> tuple[np.ndarray, str]:
    """Returns where a mask is defective, and what should be said of it."""
    found = np.unique(levels)
    if len(found) == 1:
        return levels != 0, "" if found[0] else EMPTY
    if len(found) == 2:
        return levels == found[1], ""
    above = levels > found[0]
    if levels.dtype.kind != "f" and found[-1] <= _MOST_KINDS * _WHOLE and not is_lossy:
        return above, KINDS
    if is_lossy:  # of noise beside a defect, too
        return levels >= (float(found[0]) + float(found[-1])) / 2, FRINGED
    above = levels > found[0] + (float(found[-1]) - float(found[0])) * _NOISE
    defects, count = ndimage.label(above, np.ones((3, 3)))
    largest = np.array([0, *ndimage.maximum(levels, defects, range(1, count + 1))])[defects]
    return above & (levels >= (float(found[0]) + largest) / 2), FRINGED


def _levels(content: bytes, name: str, opened: Picture) -> np.ndarray:
    """Returns how bright each pixel is, ``(H, W)``, without losing a bit of the file."""
    image = opened.image
    if (wide := wide_grey(image)) is not None:
        values = np.nan_to_num(wide[0])
        return values.astype(np.result_type(values, np.int64)) * _WHOLE  # float32 would overflow
    alpha = None
    if has_alpha(image):
        rgba = to_rgba(image)
        alpha, image = np.asarray(rgba)[..., 3], over_black(rgba)
    colours = np.asarray(to_mode(image, "RGB"))
    if opened.is_wide_colour:
        colours = wide_colour(content, name, opened)[..., :3]
        if alpha is not None and alpha.any():
            colours = colours * (alpha[..., None] / 255)
    levels: np.ndarray = colours @ _LUMINANCE
    if alpha is not None and levels.min() == levels.max() and alpha.min() != alpha.max():
        return alpha  # drawn in the alpha channel alone
    return levels
