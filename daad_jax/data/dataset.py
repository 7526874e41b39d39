"""What a data source hands over: uint8 arrays with their names, labels and masks."""

import os
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Dataset:
    """One category: normal images to train on, images to test on, and perhaps to calibrate on.

    Attributes:
        category: the category's name.
        train: normal images.
        test: good and defective images.
        calibration: normal images held out of `train`; empty when nothing is held out.
    """

    category: str
    train: ImageSet
    test: ImageSet
    calibration: ImageSet


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
