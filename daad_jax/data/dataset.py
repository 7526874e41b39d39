"""Data sets: uint8 images with names, kinds and masks, and the draw of held-out images."""

import functools
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.errors import ConfigError

ALL = "all"  # the value of data.category that stands for every category
GOOD = "good"  # the kind of a normal image


@dataclass(frozen=True)
class ImageSet:
    """Images of one split.

    `inputs` is uint8 ``(n, H, W, C)`` in 0 to 255, in memory or memory-mapped: what is trained on
    and scored, with 1 or 3 colours and perhaps the channel of `split_valid`. `names` are unique
    and for display, such as a file's path relative to its category. `kinds` are the defect types,
    "good" for a normal image. `masks` are n masks, true on defects, or None if the source has none:
    bool ``(n, H, W)``, or `PackedMask` objects at the pictures' own sizes. ``numpy.asarray`` of
    each is bool ``(h, w)``.
    """

    inputs: np.ndarray
    names: list[str]
    kinds: list[str]
    masks: Sequence[Any] | np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def images(self) -> np.ndarray:
        """The colours of `inputs`, uint8 ``(n, H, W, C)``, C 1 or 3."""
        colours: np.ndarray = split_valid(self.inputs)[0]
        return colours

    @property
    def valid(self) -> np.ndarray | None:
        """Bool ``(n, H, W)``: which pixels count; None if all do."""
        valid = split_valid(self.inputs)[1]
        return None if valid is None else valid[..., 0] > 0

    @property
    def labels(self) -> np.ndarray:
        """Int ``(n,)``: 1 for a defective image, 0 for a normal one."""
        return np.array([kind != GOOD for kind in self.kinds], dtype=np.int64)

    def take(self, index: slice) -> "ImageSet":
        """Returns a slice of the set. Its arrays are views."""
        masks = None if self.masks is None else self.masks[index]
        return ImageSet(self.inputs[index], self.names[index], self.kinds[index], masks)


class Duplicates(NamedTuple):
    """Test images with the same pixels as another image of their category.

    `in_training` pairs the name of each test image that is also a training or calibration image
    with the name of that image. `under_both_labels` pairs the names of the normal and the defective
    copy of each image that is in the test set under both labels.
    """

    in_training: list[tuple[str, str]]
    under_both_labels: list[tuple[str, str]]


@dataclass(frozen=True)
class Dataset:
    """One category: normal training images, test images and normal calibration images.

    `calibration` shares no image with `train` and is empty if none are held out. `left_out` counts
    the images that were left out because a file is unreadable.
    """

    category: str
    train: ImageSet
    test: ImageSet
    calibration: ImageSet
    left_out: int = 0

    @functools.cached_property
    def duplicates(self) -> Duplicates:
        """Test images with the same pixels as another image. This reads every image once."""
        normal: dict[bytes, str] = {}
        for part in (self.train, self.calibration):
            for name, image in zip(part.names, part.images, strict=True):
                normal.setdefault(_hash(image), name)
        by_label: tuple[dict[bytes, str], dict[bytes, str]] = ({}, {})
        in_training = []
        test = self.test
        for name, label, image in zip(test.names, test.labels, test.images, strict=True):
            pixels = _hash(image)
            by_label[label].setdefault(pixels, name)
            if pixels in normal:
                in_training.append((name, normal[pixels]))
        good, defective = by_label
        both = [(name, defective[pixels]) for pixels, name in good.items() if pixels in defective]
        return Duplicates(in_training, both)


def split_valid(images: Any) -> tuple[Any, Any]:
    """Splits images ``(..., C)`` of NumPy or JAX into colours and the channel of pixels that count.

    Images with 2 or 4 channels have that channel, the last one: high where a pixel counts and low
    in padding and in an ignored region. Returns the colours and ``(..., 1)``, or None without it.
    """
    if images.shape[-1] % 2:
        return images, None
    return images[..., :-1], images[..., -1:]


def _hash(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


class Split(NamedTuple):
    """Indices of the parts of the normal images, int and ascending."""

    train: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


def hold_out(count: int, config: DataConfig) -> Split:
    """Divides `count` normal images at random into training, calibration and test images.

    With ``data.calibration_groups=0`` single images are drawn. With g groups, the images in the
    order of their names are divided into g contiguous groups of equal size (up to one image), and
    whole groups are drawn. This keeps neighbours together, for example frames of one video. At
    least one group stays in training.

    The test images are drawn first, the share `test_fraction` of all images, then the calibration
    images, the share `calibration_fraction` of the others. A share is rounded up to whole images or
    groups. If it is not 0, at least two images are held out where possible. `split_seed` is the
    seed of both draws. Raises ConfigError if there is only one group.
    """
    if config.calibration_groups == 1:
        raise ConfigError(
            "data.calibration_groups: one group cannot be divided; set 0 or at least 2 groups"
        )
    grouped = config.calibration_groups > 0
    units = np.array_split(np.arange(count), min(config.calibration_groups or count, count) or 1)
    test, units = _draw(units, config.test_fraction or 0, [config.split_seed, 1], grouped)
    calibration, units = _draw(units, config.calibration_fraction, config.split_seed, grouped)
    return Split(*(np.concatenate([np.arange(0), *part]) for part in (units, calibration, test)))


_Units = list[np.ndarray]


def _draw(
    units: _Units, fraction: float, seed: int | list[int], grouped: bool
) -> tuple[_Units, _Units]:
    """Draws a share of the units: single images or groups. Returns them and the others, in order.

    The share is rounded up. For example 0.07 of 100 is 7, not 8.
    """
    number = math.ceil(round(len(units) * fraction, 9))
    rng = np.random.default_rng(seed)
    if grouped:
        order = rng.permutation(len(units))
        while 0 < number < len(units) and sum(len(units[at]) for at in order[:number]) < 2:
            number += 1
        chosen = order[: min(number, len(units) - 1)]
    else:
        number = min(max(number, 2), len(units)) if number else 0
        chosen = rng.choice(len(units), number, replace=False)
    drawn = set(chosen.tolist())
    return (
        [unit for at, unit in enumerate(units) if at in drawn],
        [unit for at, unit in enumerate(units) if at not in drawn],
    )


def display_name(path: str | os.PathLike[str]) -> str:
    r"""Returns a file's name as text that can be encoded as UTF-8.

    Bytes of the name that are not UTF-8 become escapes such as ``\xff``. Everything else is kept,
    so the caller must quote or escape it for its own format.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
