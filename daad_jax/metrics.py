"""Detection metrics on raw float64 scores, by scikit-learn; higher scores mean more anomalous."""

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

CONFIDENCE = 0.95


def detection_metrics(
    labels: np.ndarray, scores: np.ndarray, *, samples: int, seed: int
) -> dict[str, Any]:
    """Image-level metrics of one score.

    Args:
        labels: int ``(n,)``, 1 for defective; both classes present.
        scores: float ``(n,)``, finite.
        samples: resamplings for the interval.
        seed: of the resampling.

    Returns:
        ``image_auroc``; ``image_auroc_interval``, a 95 % bootstrap interval; ``average_precision``;
        ``best_f1`` and its ``best_f1_threshold``, chosen on these very labels.
    """
    scores = np.asarray(scores, np.float64)
    f1, threshold = best_f1(labels, scores)
    return {
        "image_auroc": image_auroc(labels, scores),
        "image_auroc_interval": list(bootstrap_auroc(labels, scores, samples=samples, seed=seed)),
        "average_precision": float(average_precision_score(labels, scores)),
        "best_f1": f1,
        "best_f1_threshold": threshold,
    }


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of float ``(n,)`` scores for int ``(n,)`` labels."""
    return float(roc_auc_score(labels, np.asarray(scores, np.float64)))


def best_f1(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The highest F1 over all thresholds and the threshold (score >= it means defective)."""
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    total = precision[:-1] + recall[:-1]
    f1 = 2 * precision[:-1] * recall[:-1] / np.where(total > 0, total, 1.0)
    best = int(np.argmax(f1))
    return float(f1[best]), float(thresholds[best])


def bootstrap_auroc(
    labels: np.ndarray, scores: np.ndarray, *, samples: int, seed: int
) -> tuple[float, float]:
    """A 95 % percentile bootstrap interval of the AUROC.

    Good and defective images are resampled apart, so that both are always there. The AUROC of a
    resampling is the weighted share of (defective, good) pairs in the right order, ties as halves.

    Args:
        labels: int ``(n,)``.
        scores: float ``(n,)``.
        samples: number of resamplings.
        seed: of the resampling.

    Returns:
        The lower and upper end.
    """
    rng = np.random.default_rng(seed)
    bad, good = scores[labels == 1], np.sort(scores[labels == 0])
    below = np.searchsorted(good, bad, side="left")
    not_above = np.searchsorted(good, bad, side="right")
    aurocs = np.empty(samples)
    for index in range(samples):
        bad_weights = rng.multinomial(len(bad), np.full(len(bad), 1 / len(bad)))
        good_weights = rng.multinomial(len(good), np.full(len(good), 1 / len(good)))
        cumulative = np.concatenate([[0], np.cumsum(good_weights)])
        wins = 0.5 * (cumulative[below] + cumulative[not_above])
        aurocs[index] = np.dot(bad_weights, wins) / (len(bad) * len(good))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(aurocs, [tail, 1 - tail])
    return float(low), float(high)


def pixel_auroc(masks: np.ndarray, maps: np.ndarray) -> float | None:
    """AUROC over all pixels of all images.

    Args:
        masks: bool ``(n, H, W)``.
        maps: float ``(n, H, W)``.

    Returns:
        The AUROC, or None when no pixel, or every pixel, is defective.
    """
    flat = masks.reshape(-1)
    if flat.all() or not flat.any():
        return None
    return float(roc_auc_score(flat, maps.reshape(-1)))
