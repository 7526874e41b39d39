"""Pseudo-defects: normal images with artificial defects, to choose settings without test images.

They are made only of normal training and calibration images, so settings can be compared by the
AUROC on them as often as one likes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from daad_jax.data.dataset import split_valid
from daad_jax.data.shapes import Size, blob_field, curve, rasterize

MAX_IMAGES = 200
MAX_PIXELS = 1 << 24  # of the normal images together: 200 of 289 px
MIN_SIZE = 16
AREA_RANGE = (0.005, 0.06)
MIN_CHANGE = 0.5
_TRIES = 20
_DONORS_FOR_SPREAD = 200

Array = np.ndarray
Rng = np.random.Generator
Pair = tuple[Array, Array]


class PseudoDefects(NamedTuple):
    """Normal images, each with one defect.

    `images` is uint8 ``(m, H, W, C)`` in 0 to 255. `masks` is bool ``(m, H, W)``. Pixels outside a
    mask are those of the normal image. `kinds` are "patch", "scar", "stain" or "halves".
    """

    images: np.ndarray
    masks: np.ndarray
    kinds: list[str]


class _Donors(NamedTuple):
    """Images ``(n, H, W, C)`` to take pixels from, and the standard deviation of their pixels."""

    images: Array
    spread: float

    def pick(self, rng: Rng) -> Array:
        return self.images[rng.integers(len(self.images))].astype(np.float64)


# A defect takes a float image, the donors and a generator, and gives the changed image, not yet
# clipped, and its mask.
Defect = Callable[[Array, _Donors, Rng], Pair]


def make_pseudo_defects(normal: np.ndarray, donors: np.ndarray, *, seed: int = 0) -> PseudoDefects:
    """Puts one defect of each kind into normal images.

    A ``patch`` is a blob filled with pixels from another place of a donor (the idea of CutPaste, Li
    et al., CVPR 2021). A ``scar`` is a thin dark or bright line, and a ``stain`` is a soft dark or
    bright blob. ``halves`` joins two images along a straight line. Patches and stains cover 0.5 to
    6 % of an image. A defect is drawn up to 20 times, until the root mean square change of its
    pixels is half the donors' standard deviation. If it never is, the strongest draw is used.

    `normal` is uint8 ``(n, H, W, C)`` with both sides at least 16, perhaps with the channel of
    `daad_jax.data.dataset.split_valid`, which the results keep: there is no defect where pixels do
    not count. At most 200 evenly spaced images of it are used, fewer above 289 px. `donors` is
    uint8 ``(k, H, W, C)`` without that channel, at least one other normal image. Returns the
    defects kind by kind, with the images in the same order for each.
    """
    sampled = donors[:: -(-len(donors) // _DONORS_FOR_SPREAD)]
    source = _Donors(donors, float(np.std(sampled, dtype=np.float64)))
    colours, valid = split_valid(normal)
    most = max(1, min(MAX_IMAGES, MAX_PIXELS // (normal.shape[1] * normal.shape[2])))
    chosen = np.linspace(0, len(normal) - 1, min(len(normal), most)).astype(int)
    images, masks, kinds = [], [], []
    for number, (kind, make) in enumerate(_DEFECTS.items()):
        for index in chosen:
            rng = np.random.default_rng([seed, number, index])
            counts = None if valid is None else valid[index]
            image, mask = _visible_defect(make, colours[index], source, rng, counts)
            images.append(image if counts is None else np.concatenate([image, counts], axis=-1))
            masks.append(mask)
            kinds.append(kind)
    return PseudoDefects(np.stack(images), np.stack(masks), kinds)


def _visible_defect(
    make: Defect, normal: Array, donors: _Donors, rng: Rng, valid: Array | None
) -> Pair:
    """Draws a defect until it changes the pixels enough to be seen, or takes the strongest.

    `valid` ``(H, W, 1)`` is above 0 where pixels count; a defect is cut off elsewhere.
    """
    before = normal.astype(np.float64)
    strongest, most = None, -1.0
    for _ in range(_TRIES):
        image, mask = make(before, donors, rng)
        image = np.clip(np.rint(image), 0, 255)
        if valid is not None:
            image, mask = np.where(valid > 0, image, before), mask & (valid[..., 0] > 0)
        change = float(np.sqrt(np.mean(np.square(image - before)[mask]))) if mask.any() else 0.0
        if change > most:
            strongest, most = (image.astype(np.uint8), mask), change
        if most >= MIN_CHANGE * donors.spread:
            break
    assert strongest is not None
    return strongest


def _blob(size: Size, rng: Rng) -> Array:
    """A random blob whose area in pixels is within `AREA_RANGE`: bool ``(H, W)``."""
    field = blob_field(size, AREA_RANGE, rng)
    least, most = (share * size[0] * size[1] for share in AREA_RANGE)
    pixels = int(np.clip(np.sum(field < 1.0), np.ceil(least), np.floor(most)))
    return field <= np.partition(field, pixels - 1, axis=None)[pixels - 1]


def _patch(normal: Array, donors: _Donors, rng: Rng) -> Pair:
    """A blob of another place of a donor, a little lighter or darker than it is there."""
    size = normal.shape[:2]
    mask = _blob(size, rng)
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    top, left = rng.integers(0, (size[0] - height + 1, size[1] - width + 1))
    piece = donors.pick(rng)[top : top + height, left : left + width]
    piece = piece.mean() + rng.uniform(0.9, 1.1) * (piece - piece.mean())
    piece += rng.uniform(-0.2, 0.2) * donors.spread
    image = normal.copy()
    image[rows, columns] = np.where(mask[rows, columns, None], piece, image[rows, columns])
    return image, mask


def _scar(normal: Array, donors: _Donors, rng: Rng) -> Pair:
    """A thin curved line, a quarter to seven tenths of the image's shorter side long."""
    size, shape = min(normal.shape[:2]), normal.shape[:2]
    angle = rng.uniform(0, np.pi)
    half = 0.5 * rng.uniform(0.25, 0.7) * size * np.array([np.sin(angle), np.cos(angle)])
    center = rng.uniform(np.abs(half) + 1, np.array(shape) - np.abs(half) - 1)
    bow = rng.normal(0.0, size / 16) * np.array([np.cos(angle), -np.sin(angle)])
    width = max(1, round(rng.integers(1, 3) * size / 64))
    line = rasterize(curve(center - half, center + half, bow, size), shape)
    mask = ndimage.binary_dilation(line, np.ones((width, width)))
    return normal + _shift((2.0, 4.0), donors, rng) * mask[..., None], mask


def _stain(normal: Array, donors: _Donors, rng: Rng) -> Pair:
    """A blob that fades towards its edge. The texture shows through it."""
    mask = _blob(normal.shape[:2], rng)
    depth = ndimage.distance_transform_edt(mask)
    opacity = np.minimum(2 * depth / depth.max(), 1.0)
    return normal + _shift((1.0, 2.5), donors, rng) * opacity[..., None], mask


def _halves(normal: Array, donors: _Donors, rng: Rng) -> Pair:
    """Everything beyond a straight line near the centre comes from a donor."""
    height, width = normal.shape[:2]
    y, x = np.mgrid[:height, :width]
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.1, 0.1) * min(height, width)
    mask = y * np.sin(angle) + x * np.cos(angle) > offset
    return np.where(mask[..., None], donors.pick(rng), normal), mask


def _shift(amounts: tuple[float, float], donors: _Donors, rng: Rng) -> float:
    """A random number of standard deviations of the donors' pixels, negative or positive."""
    return float(rng.choice([-1.0, 1.0]) * rng.uniform(*amounts) * donors.spread)


_DEFECTS: dict[str, Defect] = {
    "patch": _patch,
    "scar": _scar,
    "stain": _stain,
    "halves": _halves,
}
