"""The anomaly scores: pure functions, and the table `SCORES` of all of them.

The paper's scores (Section 3.3) are R, L and their sum A. R averages errors over all pixels, so a
small defect hardly changes it. The localised scores, which extend the paper, look at the worst
place of an error map. A relative map is divided by the mean map of normal images.

A new score is one entry of the table.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from daad_jax.config import Config, ScoreConfig
from daad_jax.errors import ConfigError, shown, suggestion

_HIGHEST = jax.lax.Precision.HIGHEST


class RawScores(NamedTuple):
    """What the networks compute for n images, before any scaling.

    Attributes:
        reconstruction_score: R(x), float64 ``(n,)``.
        alignment_score: L(x), float64 ``(n,)``, or None without a discriminator.
        anomaly_map: float32 ``(n, H, W)``, see `anomaly_map`.
        feature_map: float32 ``(n, h, w)``, see `feature_map`; None without a discriminator.
        reconstruction: float32 ``(n, H, W, C)`` in [-1, 1].
    """

    reconstruction_score: np.ndarray
    alignment_score: np.ndarray | None
    anomaly_map: np.ndarray
    feature_map: np.ndarray | None
    reconstruction: np.ndarray


class Reference(NamedTuple):
    """Mean maps of normal training images; the relative scores divide by them.

    Attributes:
        step: the number of updates of the state that made them.
        anomaly_map: float32 ``(H, W)``.
        feature_map: float32 ``(h, w)``, or None without a discriminator.
    """

    step: int
    anomaly_map: np.ndarray
    feature_map: np.ndarray | None


class MinMax(NamedTuple):
    """Min-max normaliser: maps `low` to 0 and `high` to 1; extrapolates outside the range."""

    low: float
    high: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Normalises values of any shape; if low equals high, values are only shifted."""
        span = self.high - self.low
        return (np.asarray(values, np.float64) - self.low) / (span if span > 0 else 1.0)


class Scales(NamedTuple):
    """The normalisers of R and of L; `alignment` is None without a discriminator."""

    reconstruction: MinMax
    alignment: MinMax | None


def fit_scales(raw: RawScores) -> Scales:
    """Fits the normalisers to the minimum and maximum of R and of L over n >= 1 images.

    On the whole test set this is the protocol `paper`; on held-out normal images, `calibrated`.
    """

    def fit(values: np.ndarray) -> MinMax:
        return MinMax(float(values.min()), float(values.max()))

    alignment = raw.alignment_score
    return Scales(fit(raw.reconstruction_score), None if alignment is None else fit(alignment))


class ScoreInputs(NamedTuple):
    """Everything that a score is computed from.

    Attributes:
        raw: maps and unscaled scores of n images.
        settings: the score section of the config.
        scales: normalisers by protocol: "paper", "calibrated", both or none.
        protocol: the protocol of the score A.
        reference: mean maps of normal images, or None.
    """

    raw: RawScores
    settings: ScoreConfig
    scales: dict[str, Scales]
    protocol: str
    reference: Reference | None


def _other_protocol(protocol: str) -> Callable[[ScoreInputs], bool]:
    return lambda inputs: protocol in inputs.scales and inputs.protocol != protocol


NEEDS: dict[str, Callable[[ScoreInputs], bool]] = {
    "discriminator": lambda inputs: inputs.raw.feature_map is not None,
    "reference": lambda inputs: inputs.reference is not None,
    "scales": lambda inputs: inputs.protocol in inputs.scales,
    "paper": _other_protocol("paper"),
    "calibrated": _other_protocol("calibrated"),
}
"""What a score may need, and how to see whether it is there."""

_FEATURES, _REFERENCE = ("discriminator",), ("reference",)


class Score(NamedTuple):
    """One entry of `SCORES`.

    Attributes:
        function: maps `ScoreInputs` of n images to float64 ``(n,)``; higher is more anomalous.
        sentence: what it is, for the report.
        headline: whether it is shown in short tables.
        needs: keys of `NEEDS`; without one of them the score is left out.
        label: its name in tables, by default its key with spaces; ``{protocol}`` is replaced.
        decides: whether `score.decision` may name it.
    """

    function: Callable[[ScoreInputs], np.ndarray]
    sentence: str
    headline: bool = False
    needs: tuple[str, ...] = ()
    label: str = ""
    decides: bool = True


def compute_scores(inputs: ScoreInputs) -> dict[str, np.ndarray]:
    """Computes every score of `SCORES` whose needs are met, float64 ``(n,)`` each, by name."""
    return {
        name: score.function(inputs)
        for name, score in SCORES.items()
        if all(NEEDS[need](inputs) for need in score.needs)
    }


def score_label(name: str, protocol: str) -> str:
    """The label of a score in tables.

    `name` is usually a key of `SCORES`, and `protocol` that of the score A.
    """
    label = SCORES[name].label if name in SCORES else ""
    return label.format(protocol=protocol) or name.replace("_", " ")


def check_decision(config: Config) -> None:
    """Checks that `score.decision` names a score that a run of this config has.

    Raises:
        ConfigError: if it does not.
    """
    name = config.score.decision
    known = [key for key, score in SCORES.items() if score.decides]
    if name not in known:
        raise ConfigError(f"score.decision: no score {shown(name)}; {suggestion(name, known)}")
    if "discriminator" in SCORES[name].needs and not config.has_discriminator:
        raise ConfigError(
            f"score.decision: {name!r} needs a discriminator; set it to 'A', or loss.adv or "
            "loss.ali above 0"
        )


def reconstruction_score(images: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """R(x): the mean squared difference of an image and its reconstruction.

    Args:
        images: ``(B, H, W, C)`` in [-1, 1].
        reconstruction: ``(B, H, W, C)`` in [-1, 1].

    Returns:
        ``(B,)``, in [0, 4].
    """
    return _mean_per_example(jnp.square(images - reconstruction))


def alignment_score(features: jax.Array, reconstruction_features: jax.Array) -> jax.Array:
    """L(x): the mean squared difference of f_D of an image and of its reconstruction.

    Args:
        features: f_D(x), ``(B, h, w, c)``.
        reconstruction_features: f_D(x_hat), ``(B, h, w, c)``.

    Returns:
        ``(B,)``, not negative.
    """
    return _mean_per_example(jnp.square(features - reconstruction_features))


def _mean_per_example(values: jax.Array) -> jax.Array:
    return jnp.mean(values.reshape(values.shape[0], -1), axis=-1)


def anomaly_map(images: jax.Array, reconstruction: jax.Array, blur: jax.Array) -> jax.Array:
    """The channel mean of the squared error, smoothed. The paper has no map.

    Args:
        images: ``(B, H, H, C)`` in [-1, 1].
        reconstruction: ``(B, H, H, C)`` in [-1, 1].
        blur: ``(H, H)`` from `blur_matrix`.

    Returns:
        ``(B, H, H)``, in [0, 4].
    """
    error = jnp.mean(jnp.square(images - reconstruction), axis=-1)
    return jnp.einsum("ih,bhw,jw->bij", blur, error, blur, precision=_HIGHEST)


def feature_map(features: jax.Array, reconstruction_features: jax.Array) -> jax.Array:
    """The channel mean of the squared difference of f_D of an image and of its reconstruction.

    Args:
        features: f_D(x), ``(B, h, w, c)``.
        reconstruction_features: f_D(x_hat), ``(B, h, w, c)``.

    Returns:
        ``(B, h, w)``, not negative.
    """
    return jnp.mean(jnp.square(features - reconstruction_features), axis=-1)


def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """The matrix of a Gaussian filter along an axis of `size` pixels, with reflected edges.

    Args:
        size: H.
        sigma: standard deviation in pixels; 0 gives the identity.

    Returns:
        float32 ``(H, H)``; ``B @ map @ B.T`` smooths a map.
    """
    identity = np.eye(size)
    if sigma > 0:
        identity = ndimage.gaussian_filter1d(identity, sigma, axis=0, mode="reflect")
    return identity.astype(np.float32)


def anomaly_score(
    reconstruction: np.ndarray, alignment: np.ndarray | None, gamma: float
) -> np.ndarray:
    """Fuses the scaled scores, Eq. (7): ``A(x) = gamma R(x) + (1 - gamma) L(x)``.

    Args:
        reconstruction: R(x), scaled, ``(n,)``.
        alignment: L(x), scaled, ``(n,)``; None is allowed with gamma 1.
        gamma: weight of R, in [0, 1].

    Returns:
        ``(n,)``.

    Raises:
        ValueError: without alignment scores and with gamma below 1.
    """
    if alignment is None:
        if gamma < 1:
            raise ValueError(f"gamma {gamma} needs alignment scores")
        return reconstruction
    return gamma * reconstruction + (1 - gamma) * alignment


def relative_map(maps: np.ndarray, normal_map: np.ndarray) -> np.ndarray:
    """Divides maps by the mean map of normal images.

    Args:
        maps: ``(n, H, W)``, not negative.
        normal_map: ``(H, W)``; values below a hundredth of its mean are raised to that.

    Returns:
        float32 ``(n, H, W)``: 1 where an image has the error that normal images have.
    """
    floor = max(0.01 * float(normal_map.mean()), float(np.finfo(np.float32).tiny))
    return np.asarray(maps / np.maximum(normal_map, floor), np.float32)


def map_maximum(maps: np.ndarray) -> np.ndarray:
    """The maximum of each map ``(n, H, W)``, float64 ``(n,)``."""
    return maps.reshape(len(maps), -1).max(axis=1).astype(np.float64)


def map_contrast(maps: np.ndarray) -> np.ndarray:
    """The maximum over the median of each map: how much the worst place stands out.

    Dividing by the median removes that some images are harder to rebuild everywhere.

    Args:
        maps: ``(n, H, W)``, not negative.

    Returns:
        float64 ``(n,)``, at least 1; a median of 0 counts as the smallest normal float32.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    median = np.maximum(np.median(flat, axis=1), np.finfo(np.float32).tiny)
    return np.asarray(flat.max(axis=1) / median)


def map_quantile(maps: np.ndarray, quantile: float) -> np.ndarray:
    """A quantile in [0, 1] of each map ``(n, H, W)``, float64 ``(n,)``."""
    return np.quantile(maps.reshape(len(maps), -1), quantile, axis=1).astype(np.float64)


def _fused(inputs: ScoreInputs, protocol: str) -> np.ndarray:
    raw, scales = inputs.raw, inputs.scales[protocol]
    alignment = None
    if raw.alignment_score is not None and scales.alignment is not None:
        alignment = scales.alignment(raw.alignment_score)
    reconstruction = scales.reconstruction(raw.reconstruction_score)
    return anomaly_score(reconstruction, alignment, inputs.settings.gamma)


def _relative(inputs: ScoreInputs) -> np.ndarray:
    assert inputs.reference is not None
    return relative_map(inputs.raw.anomaly_map, inputs.reference.anomaly_map)


def _alignment(inputs: ScoreInputs) -> np.ndarray:
    assert inputs.raw.alignment_score is not None
    return inputs.raw.alignment_score


def _features(inputs: ScoreInputs) -> np.ndarray:
    assert inputs.raw.feature_map is not None
    return inputs.raw.feature_map


def _relative_features(inputs: ScoreInputs) -> np.ndarray:
    assert inputs.reference is not None
    assert inputs.reference.feature_map is not None
    return relative_map(_features(inputs), inputs.reference.feature_map)


SCORES: dict[str, Score] = {
    "R": Score(
        lambda x: x.raw.reconstruction_score, "reconstruction error, mean over pixels", True
    ),
    "L": Score(_alignment, "difference of the discriminator's features, mean", True, _FEATURES),
    "A": Score(
        lambda x: _fused(x, x.protocol),
        "weighted sum of R and L, each scaled to 0 to 1",
        True,
        ("scales",),
        "A ({protocol})",
    ),
    "A_paper": Score(
        lambda x: _fused(x, "paper"),
        "A scaled by the test images themselves",
        True,
        ("paper",),
        "A (paper)",
        decides=False,
    ),
    "A_calibrated": Score(
        lambda x: _fused(x, "calibrated"),
        "A scaled by held-out normal images",
        True,
        ("calibrated",),
        "A (calibrated)",
        decides=False,
    ),
    "R_max": Score(lambda x: map_maximum(x.raw.anomaly_map), "maximum of the anomaly map"),
    "R_quantile": Score(
        lambda x: map_quantile(x.raw.anomaly_map, x.settings.map_quantile),
        "upper quantile of the anomaly map",
    ),
    "L_max": Score(
        lambda x: map_maximum(_features(x)), "maximum of the feature map", needs=_FEATURES
    ),
    "R_max_relative": Score(
        lambda x: map_maximum(_relative(x)), "maximum of the relative map", True, _REFERENCE
    ),
    "R_quantile_relative": Score(
        lambda x: map_quantile(_relative(x), x.settings.map_quantile),
        "upper quantile of the relative map",
        needs=_REFERENCE,
    ),
    "R_contrast_relative": Score(
        lambda x: map_contrast(_relative(x)),
        "maximum over median of the relative map",
        True,
        _REFERENCE,
    ),
    "L_max_relative": Score(
        lambda x: map_maximum(_relative_features(x)),
        "maximum of the relative feature map",
        needs=(*_FEATURES, *_REFERENCE),
    ),
}
"""Every score by name, in the order of tables and files."""
