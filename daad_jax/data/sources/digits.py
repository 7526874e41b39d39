"""The 1,797 scanned digits of the scikit-learn package, 8 x 8 grey.

Of each class, the first four fifths in scikit-learn's order (rounded down) are training images and
the others are test images. A run trains on the training images of the normal class and is tested
on the test images of all ten classes.
"""

from pathlib import Path

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data.dataset import Dataset
from daad_jax.data.one_class import choose_classes, load_one_class, raw_split

CLASSES = tuple("0123456789")


def list_categories(config: DataConfig) -> list[str]:
    """Returns the digits that `data.category` stands for.

    Raises:
        ConfigError: if there is no such digit.
    """
    return choose_classes(config.category, CLASSES)


def load(config: DataConfig, category: str, cache: Path | None) -> Dataset:
    """Loads the digits with one class as the normal one.

    Args:
        config: size, channels, filter and held-out images.
        category: the normal class, "0" to "9".
        cache: folder for arrays above the memory limit; None keeps them in memory.

    Returns:
        The data set.

    Raises:
        ConfigError: if there is no such class.
    """
    pixels, labels = read_digits()
    train, test = split_digits(labels)
    splits = (
        raw_split("train", pixels[..., None], labels, train),
        raw_split("test", pixels[..., None], labels, test),
    )
    return load_one_class("digits", CLASSES, splits, config, category, cache)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the scans, uint8 ``(1797, 8, 8)`` in 0 to 255, and their classes, int ``(1797,)``."""
    from sklearn import datasets  # takes a second to import

    digits = datasets.load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def split_digits(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and of the test images of all classes, each ascending.

    Args:
        labels: int ``(n,)``, each image's class.
    """
    train, test = [], []
    for label in range(len(CLASSES)):
        own = np.flatnonzero(labels == label)
        cut = len(own) * 4 // 5
        train.append(own[:cut])
        test.append(own[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))
