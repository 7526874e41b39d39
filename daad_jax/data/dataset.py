"""What a data source hands over: uint8 arrays with their names, labels and masks."""

from dataclasses import dataclass, field

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
        notes: remarks for the person who reads the log.
    """

    category: str
    train: ImageSet
    test: ImageSet
    calibration: ImageSet
    notes: list[str] = field(default_factory=list)
