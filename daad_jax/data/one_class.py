"""Labelled sets as one-class problems: one class is normal, all others are defects."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import ALL, GOOD, Dataset
from daad_jax.data.encoded import EncodedImages, load_images, load_normal
from daad_jax.errors import ConfigError, suggestion


class LabelledSplit(NamedTuple):
    """Images of one split of a labelled set, not yet decoded.

    Attributes:
        split: "train" or "test", the first part of the images' names.
        indices: int ``(n,)``, each image's index in the original set.
        labels: int ``(n,)``, each image's class.
        read: takes an index of `indices` and returns the image's bytes; called from several
            threads.
        raw_shape: ``(H, W, C)`` if `read` returns raw uint8 pixels, None if it returns the bytes
            of an image file.
    """

    split: str
    indices: np.ndarray
    labels: np.ndarray
    read: Callable[[int], bytes]
    raw_shape: tuple[int, ...] | None = None


def raw_split(
    split: str, pixels: np.ndarray, labels: np.ndarray, indices: np.ndarray | None = None
) -> LabelledSplit:
    """Returns a split of images that are in memory.

    Args:
        split: "train" or "test".
        pixels: uint8 ``(N, H, W, C)``, the images of the whole set.
        labels: int ``(N,)``, their classes.
        indices: int ``(n,)``, the images of this split; None for all.
    """
    indices = np.arange(len(labels)) if indices is None else indices
    return LabelledSplit(
        split,
        indices,
        labels[indices].astype(np.int64),
        lambda index: pixels[index].tobytes(),
        pixels.shape[1:],
    )


def choose_classes(category: str, classes: Sequence[str]) -> list[str]:
    """Returns the names of the classes that `data.category` stands for; "all" for every one.

    Raises:
        ConfigError: if there is no such class.
    """
    return list(classes) if category == ALL else [classes[resolve_class(category, classes)]]


def resolve_class(category: str, classes: Sequence[str]) -> int:
    """Returns the index of a class given by name or by index; names have precedence.

    Raises:
        ConfigError: if there is no such class.
    """
    if category in classes:
        return list(classes).index(category)
    if category.isdecimal() and int(category) < len(classes):
        return int(category)
    raise ConfigError(f"data.category: no class {category!r}; {suggestion(category, classes)}")


def class_kinds(labels: np.ndarray, classes: Sequence[str], normal: int) -> list[str]:
    """Returns the kind of each image: "good" for the normal class, else the class's name.

    Args:
        labels: int ``(n,)``, each image's class.
        classes: the names of the classes.
        normal: index of the normal class.
    """
    # A defect class that is called "good" must not count as normal.
    kinds = [f"class {name}" if name == GOOD else name for name in classes]
    kinds[normal] = GOOD
    return [kinds[label] for label in labels]


def load_one_class(
    title: str,
    classes: Sequence[str],
    splits: tuple[LabelledSplit, LabelledSplit],
    config: DataConfig,
    category: str,
    cache: Path | None,
) -> Dataset:
    """Loads a labelled set with one class as the normal one.

    Args:
        title: the set's name for error messages.
        classes: the names of the classes.
        splits: the training and the test split.
        config: size, channels, filter, memory limit, held-out images and the policy for unreadable
            files.
        category: the normal class, by name or index.
        cache: folder for arrays above the memory limit; None keeps them in memory.

    Returns:
        The data set: the training images of the normal class, without the held-out ones, and all
        test images.

    Raises:
        ConfigError: if there is no such class.
        DataError: if an image cannot be read or decoded and the policy is to stop.
    """
    normal = resolve_class(category, classes)
    bad = BadFiles(config)
    train, test = splits
    own = train.labels == normal
    train = train._replace(indices=train.indices[own], labels=train.labels[own])
    train_set, calibration = load_normal(_encode(title, classes, train, normal), config, cache, bad)
    test_set = load_images(_encode(title, classes, test, normal), config, cache, bad)
    bad.warn(classes[normal])
    return Dataset(classes[normal], train_set, test_set, calibration, len(bad.errors))


def _encode(title: str, classes: Sequence[str], part: LabelledSplit, normal: int) -> EncodedImages:
    pairs = list(zip(part.indices.tolist(), part.labels.tolist(), strict=True))
    return EncodedImages(
        names=[f"{part.split}/{classes[label]}/{index:05d}" for index, label in pairs],
        kinds=class_kinds(part.labels, classes, normal),
        places=[f"{title}, {part.split} image {index}" for index, _ in pairs],
        read=lambda position: part.read(int(part.indices[position])),
        raw_shape=part.raw_shape,
    )
