"""The 1,797 scanned digits that travel in the scikit-learn wheel, 8 x 8 grey.

The split keeps scikit-learn's order: the first four fifths of each class (rounded down) are its
training part and the rest its test part. A run trains on the normal class's training part and is
tested on the test parts of all ten classes; the other nine training parts are not used.
"""

import numpy as np
from sklearn import datasets

from daad_jax.config import DataConfig
from daad_jax.data import images, one_class, textures
from daad_jax.data.dataset import Dataset, ImageSet, hold_out

CLASSES = tuple("0123456789")


def load_digits(config: DataConfig, category: str) -> Dataset:
    """Loads the digits with one class as the normal one.

    Args:
        config: size, channels, filter and calibration fraction.
        category: the normal class, "0" to "9".

    Returns:
        The data set. Calibration images are the last of the training images.

    Raises:
        ConfigError: if there is no such class.
    """
    normal = one_class.resolve_class(category, CLASSES)
    pixels, labels = read_digits()
    train, test = split_digits(labels)
    own = train[labels[train] == normal]
    train_set, calibration = hold_out(
        _image_set(pixels, labels, own, "train", normal, config), config.calibration_fraction
    )
    test_set = _image_set(pixels, labels, test, "test", normal, config)
    return Dataset(CLASSES[normal], train_set, test_set, calibration)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the scans, uint8 ``(1797, 8, 8)`` in 0 to 255, and their classes, int ``(1797,)``."""
    digits = datasets.load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def split_digits(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and the test parts of all classes, each ascending."""
    train, test = [], []
    for label in range(len(CLASSES)):
        own = np.flatnonzero(labels == label)
        cut = len(own) * 4 // 5
        train.append(own[:cut])
        test.append(own[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def _image_set(
    pixels: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    split: str,
    normal: int,
    config: DataConfig,
) -> ImageSet:
    resized = [
        images.resize_array(
            pixels[index],
            size=config.image_size,
            channels=config.channels,
            resize=config.resize,
            brightness=config.brightness,
        )
        for index in chosen
    ]
    return ImageSet(
        np.stack(resized),
        [f"{split}/{labels[index]}/{index:04d}" for index in chosen],
        textures.png_sizes(pixels[chosen]),
        one_class.class_kinds(labels[chosen], CLASSES, normal),
    )
