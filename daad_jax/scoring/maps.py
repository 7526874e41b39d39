"""The anomaly maps that are shown and measured: `score.map`, at several scales, at any size."""

import numpy as np
from PIL import Image
from scipy import ndimage

from daad_jax.config import ScoreConfig
from daad_jax.errors import CheckpointError
from daad_jax.scoring.scores import RawScores, Reference, relative_map


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
    features = np.empty_like(raw.anomaly_map)
    for resized, one in zip(features, raw.feature_map, strict=True):
        resized[:] = resize_map(one, resized.shape)
    if settings.map == "features":
        return features
    reference = _known(reference, settings)
    assert reference.feature_map is not None, "written with a discriminator"
    error = _at_scales(raw.anomaly_map, settings) / _level(reference.anomaly_map)
    return np.asarray((error + features / _level(reference.feature_map)) / 2, np.float32)


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
    total = np.zeros_like(maps)
    for sigma in settings.map_scales:
        further = (sigma**2 - settings.map_sigma**2) ** 0.5
        total += ndimage.gaussian_filter(maps, further, axes=(1, 2)) if further else maps
    return total / len(settings.map_scales)


def _level(normal_map: np.ndarray) -> float:
    return max(float(normal_map.mean()), float(np.finfo(np.float32).tiny))
