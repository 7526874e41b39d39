"""How far a score lies above those of good images with the same light.

The reconstruction error of a good image grows with its brightness and contrast, which differ from
image to image more than a small defect adds. An extension of the paper.

Functions of new images take the arrays of NumPy and of JAX.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import special

_TINY = 1e-12
_TERMS = 40


class Deviation(NamedTuple):
    """A linear model of the logarithm of a score, fitted to good images.

    The model has an `intercept` and `slopes` by each column of the light, which is standardised
    with `center` and `scale` and limited to the range from `low` to `high` that good images have.
    `spread` is the standard deviation of what the model leaves.
    """

    intercept: float
    slopes: tuple[float, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    spread: float

    def __call__(self, values: np.ndarray, light: np.ndarray) -> np.ndarray:
        """Returns standard deviations above good images, float64 ``(n,)``.

        `values` ``(n,)`` is the score, not negative; `light` ``(n, k)`` is that of `image_light`.
        """
        xp = values.__array_namespace__()
        low, high, center, scale = (
            np.array([one]) for one in (self.low, self.high, self.center, self.scale)
        )
        standard = (xp.clip(light, low, high) - center) / scale
        expected = self.intercept + standard @ np.array(self.slopes)
        return (xp.log(xp.maximum(values, _TINY)) - expected) / self.spread


def fit_deviation(values: np.ndarray, light: np.ndarray) -> Deviation:
    """Fits the model to a score ``(n,)`` of n >= 1 good images and their light ``(n, k)``.

    Ridge regression with a weight of one image on each slope, so that few images give flat slopes.
    """
    logs, center = np.log(np.maximum(values, _TINY)), light.mean(axis=0)
    scale = np.maximum(light.std(axis=0), _TINY)
    standard = (light - center) / scale
    gram = standard.T @ standard + np.eye(light.shape[1])
    slopes = np.linalg.solve(gram, standard.T @ (logs - logs.mean()))
    left = logs - logs.mean() - standard @ slopes
    freedom = max(len(values) - 1 - len(slopes), 1)
    spread = max(float(np.sqrt(np.sum(left**2) / freedom)), 1e-6)
    return Deviation(
        intercept=float(logs.mean()),
        slopes=tuple(slopes.tolist()),
        center=tuple(center.tolist()),
        scale=tuple(scale.tolist()),
        low=tuple(light.min(axis=0).tolist()),
        high=tuple(light.max(axis=0).tolist()),
        spread=spread,
    )


def log_tail(deviations: Any) -> Any:
    """The logarithm of the share of normally distributed values above deviations of any shape.

    For JAX arrays it uses exp and log only, because ONNX has no erf in float64: below 3 the series
    of Abramowitz and Stegun, 26.2.11, and above it Laplace's continued fraction, 26.2.14.
    """
    if isinstance(deviations, np.ndarray):
        return special.log_ndtr(-deviations)
    size = jnp.abs(deviations)
    near, far = jnp.minimum(size, 3.0), jnp.maximum(size, 3.0)
    total, term, fraction = near, near, far
    for index in range(1, _TERMS):
        term = term * near * near / (2 * index + 1)
        total = total + term
        fraction = far + (_TERMS - index) / fraction
    unit = math.sqrt(2 * math.pi)
    middle = jnp.log(0.5 - jnp.exp(-near * near / 2) / unit * total)
    upper = jnp.where(size < 3.0, middle, -far * far / 2 - jnp.log(fraction * unit))
    return jnp.where(deviations < 0, jnp.log1p(-jnp.exp(upper)), upper)


def image_light(images: Any, valid: Any = None) -> Any:
    """The light of uint8 images ``(n, H, W, C)``: float64 ``(n, 2)``.

    The columns are the logarithms of the mean and of the standard deviation of an image's pixels,
    or of those that count, by `valid` bool ``(n, H, W)``.
    """
    xp, pixels = images.__array_namespace__(), (1, 2, 3)
    counted = {} if valid is None else {"where": valid[..., None]}
    mean = images.mean(pixels, dtype=np.float64, **counted)
    spread = images.std(pixels, dtype=np.float64, **counted)
    return xp.log(xp.stack([mean + 1.0, spread + 1.0], axis=1))
