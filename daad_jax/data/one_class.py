"""Labelled sets as one-class problems: one class is normal, all others are defects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daad_jax.config import DataConfig
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import ALL, GOOD, Dataset, hold_out
from daad_jax.data.encoded import EncodedImages, load_images, load_normal
from daad_jax.errors import ConfigError, suggestion


class LabelledSplit(NamedTuple):
    """Images of one split of a labelled set, not yet decoded.

    `labels` is int ``(n,)``, each image's class. `indices` is int ``(n,)``, each image's index in
    the original set. `read` takes such an index and returns the bytes of an image file or uint8
    pixels ``(H, W, C)``. It is called from several threads.
    """

    labels: np.ndarray
    indices: np.ndarray
    read: Callable[[int], bytes | np.ndarray]


class LabelledSet(NamedTuple):
    """A labelled set: its name for messages, the names of its classes, and its splits."""

    title: str
    classes: Sequence[str]
    train: LabelledSplit
    test: LabelledSplit


@dataclass(frozen=True)
class LabelledSource:
    """A `daad_jax.data.sources.Source` whose categories are the classes of a labelled set.

    `classes` are their names, or None if they are known only after opening the set with `open_set`.
    """

    open_set: Callable[[DataConfig], LabelledSet]
    classes: Sequence[str] | None = None

    def list_categories(self, config: DataConfig) -> list[str]:
        """Returns the classes that `data.category` stands for. Raises what `load` raises."""
        classes = self.open_set(config).classes if self.classes is None else self.classes
        chosen = config.category
        return list(classes) if chosen == ALL else [classes[resolve_class(chosen, classes)]]

    def load(self, config: DataConfig, category: str, cache: Path | None) -> Dataset:
        """Loads the training images of the normal class and all test images.

        `category` is the name or index of the normal class. Raises ConfigError if there is no such
        set or class, and DataError if the set is missing or damaged, cannot be downloaded, or an
        image cannot be decoded and `data.on_bad_file` is "stop".
        """
        title, classes, train, test = self.open_set(config)
        normal, bad = resolve_class(category, classes), BadFiles(config)
        own = train.labels == normal
        train = train._replace(indices=train.indices[own], labels=train.labels[own])
        names = classes, normal, title
        encoded, split = _encode("train", train, *names), hold_out(len(train.labels), config)
        held_in, calibration = load_normal(encoded, split, config, cache, bad)
        test_set = load_images(_encode("test", test, *names), config, cache, bad)
        bad.warn(classes[normal])
        return Dataset(classes[normal], held_in, test_set, calibration, len(bad.errors))


def in_memory(
    pixels: np.ndarray, labels: np.ndarray, indices: np.ndarray | None = None
) -> LabelledSplit:
    """Returns a split: the images, uint8 ``(N, H, W, C)``, and labels ``(N,)`` at `indices`."""
    indices = np.arange(len(labels)) if indices is None else indices
    return LabelledSplit(labels[indices].astype(np.int64), indices, pixels.__getitem__)


def resolve_class(category: str, classes: Sequence[str]) -> int:
    """Returns the index of a class given by name or by index. Names have precedence.

    Raises ConfigError if there is no such class.
    """
    if category in classes:
        return list(classes).index(category)
    if category.isdecimal() and int(category) < len(classes):
        return int(category)
    raise ConfigError(f"data.category: no class {category!r}; {suggestion(category, classes)}")


def class_kinds(labels: np.ndarray, classes: Sequence[str], normal: int) -> list[str]:
    """Returns the kind of each image: "good" for the normal class, else the class's name.

    `labels` is int ``(n,)``, each image's class. `normal` is the index of the normal class.
    """
    # A defect class that is called "good" must not count as normal.
    kinds = [f"class {name}" if name == GOOD else name for name in classes]
    kinds[normal] = GOOD
    return [kinds[label] for label in labels]


def _encode(
    split: str, part: LabelledSplit, classes: Sequence[str], normal: int, title: str
) -> EncodedImages:
    pairs = list(zip(part.indices.tolist(), part.labels.tolist(), strict=True))
    return EncodedImages(
        names=[f"{split}/{classes[label]}/{index:05d}" for index, label in pairs],
        kinds=class_kinds(part.labels, classes, normal),
        places=[f"{title}, {split} image {index}" for index, _ in pairs],
        read=lambda position: part.read(int(part.indices[position])),
    )
