"""What a data source hands over: uint8 arrays with their names, labels and masks."""

import functools
import hashlib
import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

GOOD = "good"


@dataclass(frozen=True)
class ImageSet:
    """Images of one split.

    Attributes:
        images: uint8 ``(n, H, W, C)`` in 0 to 255, in memory or memory-mapped.
        names: ``n`` names, unique, for people; a file's path relative to the category.
        file_sizes: bytes of each image as a file (of its PNG encoding where there is no file).
        kinds: ``n`` defect types; "good" for a normal image.
        masks: bool ``(n, H, W)``, true on defects, or None when the source has no masks.
    """

    images: np.ndarray
    names: list[str]
    file_sizes: np.ndarray
    kinds: list[str]
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        """Int ``(n,)``: 1 for a defective image, 0 for a good one."""
        return np.array([kind != GOOD for kind in self.kinds], dtype=np.int64)

    def take(self, index: slice) -> "ImageSet":
        """Returns a contiguous part; the images stay a view."""
        return ImageSet(
            self.images[index],
            self.names[index],
            self.file_sizes[index],
            self.kinds[index],
            None if self.masks is None else self.masks[index],
        )


class Duplicates(NamedTuple):
    """Test images that have the same pixels as another image of their category.

    Attributes:
        in_training: for each that is also a training or calibration image, both names.
        under_both_labels: for each picture that is both a good and a defective one, both names.
    """

    in_training: list[tuple[str, str]]
    under_both_labels: list[tuple[str, str]]


@dataclass(frozen=True)
class Dataset:
    """One category: normal images to train on, images to test on, and perhaps to calibrate on.

    Attributes:
        category: the category's name.
        train: normal images.
        test: good and defective images.
        calibration: normal images held out of `train`; empty when nothing is held out.
        left_out: how many images are not there because a file could not be used.
    """

    category: str
    train: ImageSet
    test: ImageSet
    calibration: ImageSet
    left_out: int = 0

    @functools.cached_property
    def duplicates(self) -> Duplicates:
        """The test images that have the same pixels as another image; reads all images once."""
        normal: dict[bytes, str] = {}
        by_label: tuple[dict[bytes, str], dict[bytes, str]] = ({}, {})
        for part in (self.train, self.calibration):
            for name, image in zip(part.names, part.images, strict=True):
                normal.setdefault(_hash(image), name)
        in_training = []
        for name, label, image in zip(
            self.test.names, self.test.labels, self.test.images, strict=True
        ):
            pixels = _hash(image)
            by_label[label].setdefault(pixels, name)
            if pixels in normal:
                in_training.append((name, normal[pixels]))
        good, defective = by_label
        both = [(name, defective[pixels]) for pixels, name in good.items() if pixels in defective]
        return Duplicates(in_training, both)


def _hash(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def hold_out(normal: ImageSet, fraction: float) -> tuple[ImageSet, ImageSet]:
    """Splits normal training images into those to train on and, the last ones, to calibrate on.

    Args:
        normal: the normal images of a training split.
        fraction: the share that is held out, rounded up to whole images; at least two, since a
            scale needs two values, unless it is 0.
    """
    held_out = max(int(np.ceil(len(normal) * fraction)), 2) if fraction > 0 else 0
    kept = max(len(normal) - held_out, 0)
    return normal.take(slice(kept)), normal.take(slice(kept, None))


def display_name(path: str | os.PathLike[str]) -> str:
    r"""Returns a file's name as text that can always be written as UTF-8.

    Bytes of the name that are not UTF-8 become escapes such as ``\xff``; all else stays, so what
    writes the name has to quote or escape it as its own format asks.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
