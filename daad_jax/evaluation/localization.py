"""Localisation metrics over the pixels of all images, at the masks' own size."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from daad_jax.data.frame import Box
from daad_jax.scoring.maps import resize_map

LIMITS = {"aupro_30": 0.3, "aupro_5": 0.05}
"""The largest false positive rate of each AUPRO."""
TOUCHING = np.ones((3, 3))
"""Defective pixels that touch, also at a corner, are one defect."""
_MOST_THRESHOLDS = 1 << 22


Masks = Sequence[Any] | np.ndarray
"""Masks whose ``numpy.asarray`` is bool ``(h, w)``, true on defects."""
Place = Callable[[tuple[int, ...]], Box]
"""Where in its map a picture of some height and width lies."""


def mask_areas(masks: Masks) -> np.ndarray:
    """The number of defective pixels of each mask, int ``(n,)``."""
    return np.array([np.count_nonzero(np.asarray(mask)) for mask in masks], np.int64)


def defective_shares(masks: Masks, labels: np.ndarray) -> np.ndarray:
    """The defective share of each picture, float ``(n,)`` in 0 to 1.

    `labels` is int ``(n,)``, 1 for defective. A defective picture whose mask is empty has NaN.
    """
    sizes = [np.prod(np.shape(mask)) for mask in masks]
    shares = mask_areas(masks) / sizes
    return np.where((shares == 0) & (labels == 1), np.nan, shares)


def localization_metrics(
    masks: Masks | None,
    maps: np.ndarray,
    place: Place | None = None,
    valid: np.ndarray | None = None,
) -> dict[str, float | None]:
    """Pixel AUROC, pixel average precision and AUPRO of anomaly maps.

    The part of each map that shows the picture is resized to its mask. AUPRO is the area under the
    curve of the per-region overlap, which is the mean over all defects of the share of the defect's
    pixels that are found, against the false positive rate of all other pixels, up to a limit and
    divided by it (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021).

    One mask and its resized map are in memory at a time. The result is exact up to 4 million
    defective pixels. Of more, 4 million drawn at random are the thresholds: the curves are exact at
    them, and the areas differ by the order of one in 4 million.

    Args:
        masks: n masks, or None.
        maps: float ``(n, H, W)``, higher for defects.
        place: where in its map a picture of some height and width lies; None if it fills the map.
        valid: bool ``(n, H, W)``, the pixels of the maps that count; None if all do.

    Returns:
        ``pixel_auroc``, ``pixel_average_precision``, ``aupro_30`` and ``aupro_5``: each 0 to 1, or
        None without masks, without a defective pixel, or without another one.
    """
    names = ("pixel_auroc", "pixel_average_precision", *LIMITS)
    areas = mask_areas(() if masks is None else masks)
    if masks is None or not areas.any():
        return dict.fromkeys(names)
    shown = functools.partial(_shown, masks, maps, place, valid)
    thresholds = _thresholds(shown(areas), _MOST_THRESHOLDS / areas.sum())
    if not len(thresholds):
        return dict.fromkeys(names)
    found = _count(shown(), thresholds)
    if not found[0, -1]:
        return dict.fromkeys(names)
    false_positives, positives, _ = found
    false_rate, true_rate, overlap = found / found[:, -1:]
    precision = positives / np.maximum(positives + false_positives, 1)
    results = [
        np.trapezoid(true_rate, false_rate),
        np.sum(np.diff(true_rate) * precision[1:]),
        *(_area_up_to(limit, false_rate, overlap) for limit in LIMITS.values()),
    ]
    return {name: float(value) for name, value in zip(names, results, strict=True)}


class _Shown(NamedTuple):
    """The pixels of one picture: the map's values, and which are defective and which good."""

    values: np.ndarray
    defective: np.ndarray
    good: np.ndarray


def _shown(
    masks: Masks,
    maps: np.ndarray,
    place: Place | None,
    valid: np.ndarray | None,
    areas: np.ndarray | None = None,
) -> Iterator[_Shown]:
    """Yields each picture at its mask's size; with `areas`, only those of an area above 0."""
    for index, (packed, one) in enumerate(zip(masks, maps, strict=True)):
        if areas is None or areas[index]:
            mask = np.asarray(packed)
            region = place(mask.shape).region if place else slice(None)
            counts = np.ones_like(mask)
            if valid is not None:
                counts = resize_map(valid[index][region], mask.shape) >= 0.5
            values = resize_map(one[region], mask.shape)
            yield _Shown(values, mask & counts, ~mask & counts)


def _thresholds(pictures: Iterable[_Shown], share: float) -> np.ndarray:
    """The values of the defective pixels, ascending and distinct; if `share` < 1, of a draw."""
    rng = np.random.default_rng(0)
    values = [one.values[one.defective] for one in pictures]
    if share < 1:
        values = [one[rng.random(len(one)) < share] for one in values]
    return np.unique(np.concatenate(values))


def _count(pictures: Iterable[_Shown], thresholds: np.ndarray) -> np.ndarray:
    """How much is found with falling thresholds, float64 ``(3, 2 T + 2)``, from nothing to all.

    The rows are good pixels, defective pixels, and defects by the share of their pixels.
    """
    # Bin 2 i + 1 is for values equal to the threshold i, and the even bins for values between two.
    counts = np.zeros((3, 2 * len(thresholds) + 2))
    for values, defective, good in pictures:
        defects, _ = ndimage.label(defective, TOUCHING)
        sizes = np.bincount(defects.ravel())
        np.add.at(counts[0], _bins(np.sort(values[good]), thresholds), 1)
        bins = _bins(values[defective], thresholds)
        np.add.at(counts[1], bins, 1)
        np.add.at(counts[2], bins, 1 / sizes[defects[defective]])
    return np.cumsum(counts[:, ::-1], axis=1)


def _bins(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    places = np.searchsorted(thresholds, values)
    return 2 * places + (thresholds[np.minimum(places, len(thresholds) - 1)] == values)


def _area_up_to(limit: float, rates: np.ndarray, overlap: np.ndarray) -> float:
    """The area under a curve up to a false positive rate, divided by that rate."""
    inside = np.searchsorted(rates, limit, side="right")
    x = np.append(rates[:inside], limit)
    y = np.append(overlap[:inside], np.interp(limit, rates, overlap))
    return float(np.trapezoid(y, x)) / limit
