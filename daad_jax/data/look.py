"""One look at the decoded images: signs that their conversion lost what is in them."""

from collections.abc import Iterator, Sequence

import numpy as np

from daad_jax.data.dataset import Dataset, ImageSet
from daad_jax.errors import printable, warn

_DARK = 64  # files of 14 of 16 bits, or fewer, stay below
_FEW_LEVELS = 16
_SAMPLE = 256
_FAR = 64  # grey values between the mean of an image and that of the middle one
_FAR_SPREADS = 8  # median distances from it
_FAR_SHARE = 0.05
_FIELD = "set data.value_range to the values of black and white if its file has more than 8 bits"


def warn_of_pixels(dataset: Dataset) -> None:
    """Warns of images with one value, of a split in a narrow range, and of images far from others.

    Each warning names an image and a field. This reads every image once.
    """
    parts = {"training": dataset.train, "held-out": dataset.calibration, "test": dataset.test}
    constant: list[str] = []
    normal: list[tuple[str, float]] = []
    for part in parts.values():
        for name, label, image in zip(part.names, part.labels, part.images, strict=True):
            if is_blank(image):
                constant.append(name)
            elif not label:
                normal.append((name, float(image.mean())))
    lines = [line for kind, part in parts.items() for line in _narrow(kind, part)]
    if constant and not lines:
        lines.append(
            f"{len(constant)} image(s) have one value in all pixels, {constant[0]} for example; "
            f"remove or replace it, or {_FIELD}"
        )
    for line in [*lines, *_far(normal)]:
        warn(f"{printable(dataset.category)}: {printable(line)}")


def is_blank(image: np.ndarray) -> bool:
    """Whether all pixels of an image ``(H, W, C)`` are the same."""
    return bool((image == image[0, 0]).all())


def narrow_range(images: np.ndarray) -> tuple[str, int]:
    """Says that uint8 ``(n, H, W, C)`` images are nearly black, or have few grey values.

    Single pixels do not count. Returns what they are, "" if nothing is wrong, and their highest
    value.
    """
    sample = images[:: max(len(images) // _SAMPLE, 1)]
    counts = np.bincount(sample.ravel(), minlength=256)
    share = np.cumsum(counts) / max(counts.sum(), 1)
    low, high = (int(np.searchsorted(share, at)) for at in (0.0005, 0.9995))
    levels = np.count_nonzero(counts[low : high + 1])
    if len(images) and high < _DARK:
        return f"are nearly black, with values up to {high} of 255", high
    if len(images) and levels <= _FEW_LEVELS and high - low < _DARK:
        return f"have only {levels} grey value(s), from {low} to {high}", high
    return "", high


def far_from_others(means: Sequence[float] | np.ndarray) -> list[int]:
    """Finds the few images that are much darker or brighter than all others, the farthest first.

    `means` is each image's mean, 0 to 255. Returns indices; none if there are many such images.
    """
    values = np.asarray(means, float)
    if len(values) < 3:
        return []
    distances = np.abs(values - np.median(values))
    far = distances > max(_FAR, _FAR_SPREADS * float(np.median(distances)))
    if far.sum() > max(1, _FAR_SHARE * len(values)):
        return []
    ranked = np.argsort(-distances, kind="stable")
    return [int(index) for index in ranked if far[index]]


def _narrow(kind: str, images: ImageSet) -> Iterator[str]:
    what, _ = narrow_range(images.images)
    if what:
        yield f"the {kind} images {what}, {images.names[0]} for example; {_FIELD}"


def _far(normal: list[tuple[str, float]]) -> Iterator[str]:
    if far := far_from_others([mean for _, mean in normal]):
        yield (
            f"{len(far)} normal image(s) are much darker or brighter than the others, "
            f"{normal[far[0]][0]} for example; replace it, or {_FIELD}"
        )
