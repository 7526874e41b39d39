"""The anomaly maps that are shown and measured: `score.map`, at several scales, at any size."""

import numpy as np
from PIL import Image

from daad_jax.config import ScoreConfig
from daad_jax.errors import CheckpointError
from daad_jax.scoring.scores import RawScores, Reference, blur_matrix, relative_map


def shown_maps(raw: RawScores, settings: ScoreConfig, reference: Reference | None) -> np.ndarray:
    """The map of each image that `score.map` names, float32 ``(n, H, W)`` and not negative.

    ``error`` is the smoothed squared error, or with `score.map_scales` its mean over these scales.
    ``relative`` is that map divided by the good images' mean map: 1 where an image has their error.
    ``features`` is the squared difference of the features f_D, resized to the image. ``fused`` is
    the mean of both, each divided by its mean level on good images: about 1 on good images. None of
    them is in the paper. Raises CheckpointError if `relative` or `fused` lacks the reference.
    """
    if settings.map == "error":
        return _at_scales(raw.anomaly_map, settings)
    if settings.map == "relative":
        maps = _at_scales(raw.anomaly_map, settings)
        return relative_map(maps, _known(reference, settings).anomaly_map)
    assert raw.feature_map is not None, "the config is checked"
    down, across = map(_resize_matrix, raw.feature_map.shape[1:], raw.anomaly_map.shape[1:])
    features = down @ raw.feature_map @ across.T
    if settings.map == "features":
        return features
    reference = _known(reference, settings)
    assert reference.feature_map is not None, "written with a discriminator"
    error = _at_scales(raw.anomaly_map, settings) / _level(reference.anomaly_map)
    return (error + features / _level(reference.feature_map)) / 2


def resize_map(anomaly_map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes a map, float ``(H, W)``, to a picture's ``(h, w)``, bilinearly: float32."""
    image = Image.fromarray(np.asarray(anomaly_map, np.float32))
    size = (shape[1], shape[0])
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _known(reference: Reference | None, settings: ScoreConfig) -> Reference:
    if reference is None:
        raise CheckpointError(
            f"reference.npz: is missing, and score.map={settings.map!r} needs it; run eval.py to "
            "write it again"
        )
    return reference


def _at_scales(maps: np.ndarray, settings: ScoreConfig) -> np.ndarray:
    """The mean over the scales of maps ``(n, H, W)`` that `score.map_sigma` has smoothed already.

    Smoothing keeps the mean of a map, so all scales have the same level.
    """
    if not settings.map_scales:
        return maps
    smoothed = []
    for sigma in settings.map_scales:
        further = (sigma**2 - settings.map_sigma**2) ** 0.5
        down, across = (blur_matrix(side, further) for side in maps.shape[1:])
        smoothed.append(down @ maps @ across.T if further else maps)
    return sum(smoothed[1:], smoothed[0]) / len(smoothed)


def _resize_matrix(size: int, to: int) -> np.ndarray:
    """The matrix ``(to, size)`` that resizes a map along one axis as `resize_map` does."""
    return resize_map(np.eye(size), (to, size))


def _level(normal_map: np.ndarray) -> float:
    return max(float(normal_map.mean()), float(np.finfo(np.float32).tiny))
