"""The anomaly score of Section 3.3, its two scalings, and two extensions: maps, localised scores.

The paper averages errors over all pixels, in which a small defect drowns. A localised score looks
at the worst place of a smoothed map, as it is or relative to what is normal at each place.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from daad_jax import losses


def reconstruction_score(images: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """R(x): the mean squared difference of an image and its reconstruction.

    Args:
        images: ``(B, H, W, C)`` in [-1, 1].
        reconstruction: the same shape and range.

    Returns:
        ``(B,)``, in [0, 4].
    """
    return _mean_per_example(losses.reconstruction_error(images, reconstruction))


def alignment_score(features: jax.Array, reconstruction_features: jax.Array) -> jax.Array:
    """L(x): the mean squared difference of f_D of an image and of its reconstruction.

    Args:
        features: ``(B, h, w, c)``, f_D(x).
        reconstruction_features: the same shape, f_D(x_hat).

    Returns:
        ``(B,)``, not negative.
    """
    return _mean_per_example(losses.alignment_error(features, reconstruction_features))


class Scale(NamedTuple):
    """A linear scale that takes `low` to 0 and `high` to 1; beyond them it goes on.

    Attributes:
        low: the smallest value it was fitted to.
        high: the largest.
    """

    low: float
    high: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scales values; a scale fitted to equal values only shifts them."""
        span = self.high - self.low
        return (np.asarray(values, np.float64) - self.low) / (span if span > 0 else 1.0)


def fit_scale(values: np.ndarray) -> Scale:
    """Fits a `Scale` to values ``(n,)``, n at least 1.

    On one category's whole test set this is the protocol `paper`; on held-out normal images,
    `calibrated`.
    """
    values = np.asarray(values, np.float64)
    return Scale(float(values.min()), float(values.max()))


def anomaly_score(
    reconstruction: np.ndarray, alignment: np.ndarray | None, gamma: float
) -> np.ndarray:
    """Fuses the scaled scores, Eq. (7): ``A(x) = gamma R(x) + (1 - gamma) L(x)``.

    Args:
        reconstruction: R(x), scaled, ``(B,)``.
        alignment: L(x), scaled, ``(B,)``; None is allowed with gamma 1.
        gamma: weight of R, in [0, 1].

    Returns:
        ``(B,)``.

    Raises:
        ValueError: without alignment scores and with gamma below 1.
    """
    if alignment is None:
        if gamma < 1:
            raise ValueError(f"gamma {gamma} needs alignment scores")
        return reconstruction
    return gamma * reconstruction + (1 - gamma) * alignment


def anomaly_map(images: jax.Array, reconstruction: jax.Array, blur: jax.Array) -> jax.Array:
    """Where the reconstruction fails: the channel mean of the squared error, smoothed.

    The paper has no map; this is an extension.

    Args:
        images: ``(B, H, W, C)`` in [-1, 1], square.
        reconstruction: the same shape and range.
        blur: ``(H, H)`` from `blur_matrix`.

    Returns:
        ``(B, H, W)``, in [0, 4].
    """
    error = jnp.mean(losses.reconstruction_error(images, reconstruction), axis=-1)
    return jnp.einsum("ih,bhw,jw->bij", blur, error, blur)


def feature_map(features: jax.Array, reconstruction_features: jax.Array) -> jax.Array:
    """Where the features of a reconstruction differ: the channel mean of the squared difference.

    Args:
        features: ``(B, h, w, c)``, f_D(x).
        reconstruction_features: the same shape, f_D(x_hat).

    Returns:
        ``(B, h, w)``, not negative; the places are f_D's, each of which sees many pixels.
    """
    return jnp.mean(losses.alignment_error(features, reconstruction_features), axis=-1)


def relative_map(maps: np.ndarray, normal_map: np.ndarray) -> np.ndarray:
    """Divides maps by what is normal at each place, an extension.

    Args:
        maps: ``(n, H, W)``, not negative.
        normal_map: ``(H, W)``, the mean map of normal images. Where it is less than a hundredth
            of its own mean, that is taken instead.

    Returns:
        float32 ``(n, H, W)``: 1 where an image errs as normal images do.
    """
    floor = max(0.01 * float(normal_map.mean()), float(np.finfo(np.float32).tiny))
    return np.asarray(maps / np.maximum(normal_map, floor), np.float32)


def map_maximum(maps: np.ndarray) -> np.ndarray:
    """The largest value of each map ``(n, H, W)``, float64 ``(n,)``; an extension."""
    return maps.reshape(len(maps), -1).max(axis=1).astype(np.float64)


def map_contrast(maps: np.ndarray) -> np.ndarray:
    """How much worse the worst place is than the image's own typical place; an extension.

    Some normal images are harder to rebuild everywhere than others; their own median takes that
    out.

    Args:
        maps: ``(n, H, W)``, not negative.

    Returns:
        The largest value over the median, float64 ``(n,)``, at least 1. A map that is zero in
        most places gives its largest value over the smallest normal number of float32.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    median = np.maximum(np.median(flat, axis=1), np.finfo(np.float32).tiny)
    return np.asarray(flat.max(axis=1) / median)


def map_quantile(maps: np.ndarray, quantile: float) -> np.ndarray:
    """An upper quantile of each map, an extension: steadier than the largest value.

    Args:
        maps: ``(n, H, W)``.
        quantile: in [0, 1].

    Returns:
        float64 ``(n,)``.
    """
    return np.quantile(maps.reshape(len(maps), -1), quantile, axis=1).astype(np.float64)


def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """The matrix of a Gaussian filter along an axis of `size` pixels, edges reflected.

    Args:
        size: H.
        sigma: standard deviation in pixels; 0 gives the identity.

    Returns:
        float32 ``(H, H)``; a map is smoothed by ``B @ map @ B.T``.
    """
    identity = np.eye(size)
    if sigma > 0:
        identity = ndimage.gaussian_filter1d(identity, sigma, axis=0, mode="reflect")
    return identity.astype(np.float32)


def _mean_per_example(values: jax.Array) -> jax.Array:
    return jnp.mean(values.reshape(values.shape[0], -1), axis=-1)
