"""The 1,797 scanned digits of the scikit-learn package, 8 x 8 grey.

Of each class, the first four fifths in scikit-learn's order (rounded down) are training images and
the others are test images. A run trains on the training images of the normal class and is tested
on the test images of all ten classes.
"""

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data.one_class import LabelledSet, LabelledSource, in_memory

CLASSES = tuple("0123456789")


def open_set(config: DataConfig) -> LabelledSet:
    """Opens the digits, which need no file."""
    pixels, labels = read_digits()
    splits = (in_memory(pixels[..., None], labels, part) for part in split_digits(labels))
    return LabelledSet("digits", CLASSES, *splits)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the scans, uint8 ``(1797, 8, 8)`` in 0 to 255, and their classes, int ``(1797,)``."""
    from sklearn import datasets  # takes a second to import

    digits = datasets.load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def split_digits(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and of the test images of all classes, each ascending.

    `labels` is int ``(n,)``, each image's class.
    """
    train, test = [], []
    for label in range(len(CLASSES)):
        own = np.flatnonzero(labels == label)
        cut = len(own) * 4 // 5
        train.append(own[:cut])
        test.append(own[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


SOURCE = LabelledSource(open_set, CLASSES)
