"""Trivial controls: what statistics that know nothing of the method reach on the same images."""

import numpy as np
from sklearn.decomposition import PCA

from daad_jax import metrics
from daad_jax.data import ImageSet

COMPONENTS = 32
_MAX_FIT = 2000


def control_scores(train: ImageSet, test: ImageSet) -> dict[str, np.ndarray]:
    """Scores test images by statistics without a network.

    Args:
        train: normal images; only PCA looks at them.
        test: the images to score.

    Returns:
        For each control float64 ``(n,)``: ``mean`` and ``std`` of an image's pixels, ``gradient``
        (mean length of the pixel gradient of its channel mean), ``file_size`` in bytes, ``pca``
        (mean squared reconstruction error with 32 components, or fewer for few images).
    """
    statistics = np.array([_statistics(image) for image in test.images])
    return {
        "mean": statistics[:, 0],
        "std": statistics[:, 1],
        "gradient": statistics[:, 2],
        "file_size": test.file_sizes.astype(np.float64),
        "pca": pca_error(train.images, test.images),
    }


def evaluate_controls(scores: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, dict]:
    """Image AUROC of each control as it is and turned around (1 - AUROC)."""
    results = {}
    for name, values in scores.items():
        auroc = metrics.image_auroc(labels, values)
        results[name] = {"image_auroc": auroc, "turned_around": 1.0 - auroc}
    return results


def best_control(controls: dict[str, dict]) -> tuple[str, float]:
    """The control with the highest AUROC in either direction, as the test labels pick it."""
    name = max(controls, key=lambda key: max(controls[key].values()))
    return name, max(controls[name].values())


def pca_error(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean squared error of rebuilding images from their principal components.

    Args:
        train: uint8 ``(m, H, W, C)`` to fit on; at most 2,000 evenly spaced ones are used.
        test: uint8 ``(n, H, W, C)``.

    Returns:
        float64 ``(n,)``, of pixels in [-1, 1].
    """
    fitted = _rows(train[:: max(1, -(-len(train) // _MAX_FIT))])
    components = min(COMPONENTS, *fitted.shape)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(fitted)
    errors = []
    for start in range(0, len(test), 64):
        rows = _rows(test[start : start + 64])
        rebuilt = pca.inverse_transform(pca.transform(rows))
        errors.append(np.mean(np.square(rows - rebuilt), axis=1, dtype=np.float64))
    return np.concatenate(errors)


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1.0


def _statistics(image: np.ndarray) -> tuple[float, float, float]:
    pixels = image.astype(np.float64)
    down, across = np.gradient(pixels.mean(axis=-1))
    return pixels.mean(), pixels.std(), np.hypot(down, across).mean()
