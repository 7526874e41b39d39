"""Detection metrics by scikit-learn on raw float64 scores. Higher scores are more anomalous."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

CONFIDENCE = 0.95
_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def detection_metrics(
    labels: np.ndarray, scores: np.ndarray, *, samples: int, seed: int
) -> dict[str, Any]:
    """Image-level metrics of one score.

    `labels` is int ``(n,)``, 1 for defective. `scores` is float ``(n,)`` and finite. `samples` and
    `seed` are those of `bootstrap_auroc`. Returns ``image_auroc``, its bootstrap interval
    ``image_auroc_interval`` (95 %), ``average_precision``, ``best_f1`` and its threshold
    ``best_f1_threshold``, which is chosen on these very labels; nothing if a class is absent.
    """
    if not both_classes(labels):
        return {}
    scores = np.asarray(scores, np.float64)
    f1, threshold = best_f1(labels, scores)
    return {
        "image_auroc": image_auroc(labels, scores),
        "image_auroc_interval": list(bootstrap_auroc(labels, scores, samples=samples, seed=seed)),
        "average_precision": float(average_precision_score(labels, scores)),
        "best_f1": f1,
        "best_f1_threshold": threshold,
    }


def both_classes(labels: np.ndarray) -> bool:
    """Whether int ``(n,)`` labels are neither all 0 nor all 1, nor none."""
    return 0 < int(np.sum(labels)) < len(labels)


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of float ``(n,)`` scores for int ``(n,)`` labels."""
    return float(roc_auc_score(labels, np.asarray(scores, np.float64)))


def best_f1(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The highest F1 over all thresholds, and its threshold (score >= it means defective)."""
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    total = precision[:-1] + recall[:-1]
    f1 = 2 * precision[:-1] * recall[:-1] / np.where(total > 0, total, 1.0)
    best = int(np.argmax(f1))
    return float(f1[best]), float(thresholds[best])


def bootstrap_auroc(
    labels: np.ndarray, scores: np.ndarray, *, samples: int, seed: int
) -> tuple[float, float]:
    """A 95 % percentile bootstrap interval of the AUROC.

    Good and defective images are resampled separately, so that both are always present. The AUROC
    of a resampling is the weighted share of (defective, good) pairs in the right order. A tie
    counts as half a pair.

    `labels` is int ``(n,)`` and `scores` is float ``(n,)``. `samples` is the number of resamplings.
    """
    bad, good = scores[labels == 1], np.sort(scores[labels == 0])
    below = np.searchsorted(good, bad, side="left")
    not_above = np.searchsorted(good, bad, side="right")
    aurocs = np.empty(samples)
    resamplings = _resamplings(len(bad), len(good), samples, seed)
    for index, (bad_weights, good_weights) in enumerate(resamplings):
        cumulative = np.concatenate([[0], np.cumsum(good_weights)])
        wins = 0.5 * (cumulative[below] + cumulative[not_above])
        aurocs[index] = np.dot(bad_weights, wins) / (len(bad) * len(good))
    low, high = np.quantile(aurocs, _TAILS)
    return float(low), float(high)


def bootstrap_roc(
    labels: np.ndarray, scores: np.ndarray, *, samples: int, seed: int, points: int = 101
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 95 % percentile bootstrap band around the ROC curve, at each false positive rate.

    The resamplings are those of `bootstrap_auroc`. `labels` is int ``(n,)`` with both classes
    present, and `scores` is float ``(n,)``. Returns the false positive rates ``(points,)``, evenly
    spaced, and the lower and upper true positive rates there.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = labels[order]
    # Images of equal score are called defective together.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    rates = np.linspace(0.0, 1.0, points)
    curves = np.empty((samples, points))
    counts = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    for index, weights in enumerate(_resamplings(*counts, samples, seed)):
        axes = []
        for label, label_weights in zip((1, 0), weights, strict=True):
            spread = np.zeros(len(scores))
            spread[ranked == label] = label_weights
            axes.append(np.append(0.0, np.cumsum(spread)[ends]) / len(label_weights))
        curves[index] = np.interp(rates, axes[1], axes[0])
    low, high = np.quantile(curves, _TAILS, axis=0)
    return rates, low, high


def _resamplings(
    bad: int, good: int, samples: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """How often each defective and each good image is drawn, for each resampling."""
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        yield (
            rng.multinomial(bad, np.full(bad, 1 / bad)),
            rng.multinomial(good, np.full(good, 1 / good)),
        )


def pixel_auroc(masks: np.ndarray, maps: np.ndarray) -> float | None:
    """AUROC over all pixels of all images, or None if no pixel or every pixel is defective.

    `masks` is bool ``(n, H, W)`` and `maps` is float ``(n, H, W)``, or ``(k,)`` for chosen pixels.
    """
    flat = masks.reshape(-1)
    if flat.all() or not flat.any():
        return None
    return float(roc_auc_score(flat, maps.reshape(-1)))
