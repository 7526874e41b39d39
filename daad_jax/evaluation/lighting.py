"""How well simple statistics of the pixels, such as brightness, tell pictures apart."""

import dataclasses

import numpy as np

from daad_jax.data import ImageSet
from daad_jax.data.decode import equalize_brightness
from daad_jax.evaluation import baselines, metrics

CONTROLS = ("mean", "std", "gradient", "pca")
_SEPARATES = 0.9  # an AUROC from which a statistic alone tells two groups apart
_FEWEST = 5  # images of a group, for an AUROC to mean something
_MOST = 4000  # images of a split that statistics are computed of

Pairs = dict[str, tuple[float, float]]


def lighting(train: ImageSet, test: ImageSet) -> tuple[Pairs, Pairs]:
    """How well the controls of `daad_jax.evaluation.baselines` tell pictures apart.

    Returns two tables. Each has the AUROC of the controls for the pictures as they are and with
    equal brightness. The first compares defective with good test pictures, the second good test
    pictures with those to train on, without ``pca``. A table is empty if a group has fewer than
    five pictures.
    """
    train, test = _some(train), _some(test)
    good = test.labels == 0
    counts = len(train), int(good.sum()), int((~good).sum())
    if min(counts[:2]) < _FEWEST:
        return {}, {}
    kept = [_controls(part, train, equal=False) for part in (train, test)]
    equal = [_controls(part, train, equal=True) for part in (train, test)]

    def compare(old: np.ndarray | None, chosen: np.ndarray) -> Pairs:
        """Compares chosen test images with the old ones, or with the training images."""
        pairs = {}
        for name in CONTROLS:
            values = []
            for of_train, of_test in (kept, equal):
                low = of_train[name] if old is None else of_test[name][old]
                high = of_test[name][chosen]
                labels = np.repeat([0, 1], [len(low), len(high)])
                values.append(metrics.image_auroc(labels, np.concatenate([low, high])))
            pairs[name] = (values[0], values[1])
        return pairs

    by_label = compare(good, ~good) if counts[2] >= _FEWEST else {}
    by_split = compare(None, good)
    by_split.pop("pca")  # which was fitted to the training images
    return by_label, by_split


def apart(auroc: float) -> bool:
    """Whether a statistic alone tells two groups apart, in either direction."""
    return max(auroc, 1 - auroc) >= _SEPARATES


def unusual_pictures(train: ImageSet, most: int = 12) -> list[str]:
    """The names of the images that the others explain worst, the worst first.

    Each half of the images is rebuilt from principal components of the other half.
    """
    train = _some(train)
    if len(train) < 2 * _FEWEST:
        return []
    errors = np.empty(len(train))
    for part, other in ((0, 1), (1, 0)):
        errors[part::2] = baselines.pca_error(train.images[other::2], train.images[part::2])
    return [train.names[at] for at in np.argsort(-errors, kind="stable")[:most]]


def _some(images: ImageSet) -> ImageSet:
    return images.take(slice(None, None, -(-len(images) // _MOST) or 1))


def _controls(images: ImageSet, train: ImageSet, *, equal: bool) -> dict[str, np.ndarray]:
    def seen(part: ImageSet) -> ImageSet:
        pixels = np.stack([equalize_brightness(image) for image in part.images])
        return dataclasses.replace(part, inputs=pixels)

    return baselines.baseline_scores(*map(seen, (train, images)) if equal else (train, images))
