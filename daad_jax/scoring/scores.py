"""The anomaly scores: pure functions, and the table `SCORES` of all of them.

The paper's scores (Section 3.3) are R, L and their sum A. R averages errors over all pixels, so a
small defect hardly changes it. The localised scores, which extend the paper, look at the worst
place of an error map. A relative map is divided by the mean map of normal images.

A new score is one entry of the table. Its function uses ``array.__array_namespace__()`` in place of
`numpy`, so that `daad_jax.scoring.export` can trace it with JAX arrays.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from daad_jax.config import Config, ScoreConfig
from daad_jax.errors import ConfigError, shown, suggestion
from daad_jax.models.validity import count_only
from daad_jax.scoring.deviation import Deviation, log_tail

Blur = tuple[jax.Array, jax.Array]

_HIGHEST = jax.lax.Precision.HIGHEST


class RawScores(NamedTuple):
    """What the networks compute for n images, before any scaling.

    The scores R(x) and L(x) are float64 ``(n,)``. The `anomaly_map` is float32 ``(n, H, W)``. The
    feature map, float32 ``(n, h, w)``, is the `squared_map` of the features f_D; of pictures in
    tiles it has the size of the anomaly map. The reconstruction is float32 ``(n, H, W, C)`` in
    [-1, 1]. `light` is that of `daad_jax.scoring.deviation`. `valid` is bool ``(n, H, W)``, or None
    if all pixels count; the maps are 0 and the reconstruction is the image where pixels do not.
    Without a discriminator there is no L(x) and no feature map.
    """

    reconstruction_score: np.ndarray
    alignment_score: np.ndarray | None
    anomaly_map: np.ndarray
    feature_map: np.ndarray | None
    reconstruction: np.ndarray
    light: np.ndarray
    valid: np.ndarray | None = None


class Reference(NamedTuple):
    """Mean maps of normal training images; the relative scores divide by them.

    The maps are float32 ``(H, W)`` and ``(h, w)``. `step` is the number of updates of the state
    that made them.
    """

    step: int
    anomaly_map: np.ndarray
    feature_map: np.ndarray | None


class MinMax(NamedTuple):
    """Min-max normaliser: maps `low` to 0 and `high` to 1, and extrapolates outside the range."""

    low: float
    high: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Normalises values of any shape; if `low` equals `high`, it only subtracts `low`."""
        span = self.high - self.low
        return (values.astype(np.float64) - self.low) / (span if span > 0 else 1.0)


class Scales(NamedTuple):
    """The normalisers of R and of L; `alignment` is None without a discriminator."""

    reconstruction: MinMax
    alignment: MinMax | None


def fit_scales(raw: RawScores) -> Scales:
    """Fits the normalisers to the minimum and maximum of R and of L over n >= 1 images.

    With the whole test set this is the protocol "paper", with held-out normal images "calibrated".
    """

    def fit(values: np.ndarray) -> MinMax:
        return MinMax(float(values.min()), float(values.max()))

    alignment = raw.alignment_score
    return Scales(fit(raw.reconstruction_score), None if alignment is None else fit(alignment))


class ScoreInputs(NamedTuple):
    """Everything that a score is computed from.

    `scales` are the normalisers of the protocols "paper", "calibrated", both or none. `protocol` is
    that of the score A. `deviations` are models of the `COMPONENTS` of good images, by name.
    """

    raw: RawScores
    settings: ScoreConfig
    scales: dict[str, Scales]
    protocol: str
    reference: Reference | None
    deviations: Mapping[str, Deviation] = MappingProxyType({})


def _other_protocol(protocol: str) -> Callable[[ScoreInputs], bool]:
    return lambda inputs: protocol in inputs.scales and inputs.protocol != protocol


NEEDS: dict[str, Callable[[ScoreInputs], bool]] = {
    "discriminator": lambda inputs: inputs.raw.feature_map is not None,
    "reference": lambda inputs: inputs.reference is not None,
    "scales": lambda inputs: inputs.protocol in inputs.scales,
    "paper": _other_protocol("paper"),
    "calibrated": _other_protocol("calibrated"),
    "deviations": lambda inputs: bool(inputs.deviations),
}
"""What a score may need, with a test of whether the inputs have it."""

_FEATURES, _REFERENCE = ("discriminator",), ("reference",)


class Score(NamedTuple):
    """One entry of `SCORES`.

    Attributes:
        function: maps `ScoreInputs` of n images to float64 ``(n,)``; higher is more anomalous.
        sentence: a description for the report.
        headline: whether it is shown in short tables.
        needs: keys of `NEEDS`; the score is left out if one of them is not met.
        label: its name in tables, by default its key with spaces. ``{protocol}`` in it is replaced
            by the protocol.
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
    scored = len(inputs.raw.reconstruction_score) > 0
    return {
        name: score.function(inputs) if scored else np.zeros(0)
        for name, score in SCORES.items()
        if all(NEEDS[need](inputs) for need in score.needs)
    }


def score_label(name: str, protocol: str) -> str:
    """The label of a score in tables; `protocol` is that of the score A."""
    label = SCORES[name].label if name in SCORES else ""
    return label.format(protocol=protocol) or name.replace("_", " ")


def check_decision(config: Config) -> None:
    """Raises ConfigError if `score.decision` names no score that a run of this config has."""
    name = config.score.decision
    known = [key for key, score in SCORES.items() if score.decides]
    if name not in known:
        raise ConfigError(f"score.decision: no score {shown(name)}; {suggestion(name, known)}")
    held_out = config.data.calibration_fraction > 0
    for need, there, thing, field in (
        ("discriminator", config.has_discriminator, "a discriminator", "loss.adv or loss.ali"),
        ("deviations", held_out, "held-out images", "data.calibration_fraction"),
    ):
        if need in SCORES[name].needs and not there:
            raise ConfigError(
                f"score.decision: {name!r} needs {thing}; set it to 'R', or {field} above 0"
            )


def mean_squared(first: jax.Array, second: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """R(x) of images and reconstructions, or L(x) of their features f_D.

    For arrays ``(B, h, w, c)`` it is the mean squared difference of each image over what counts,
    ``(B,)``. `valid` is that of `daad_jax.models.validity.count_only`. R is in [0, 4].
    """
    return jnp.mean(count_only(jnp.square(first - second), valid), axis=(1, 2, 3))


def squared_map(first: jax.Array, second: jax.Array) -> jax.Array:
    """The squared difference of ``(B, h, w, c)`` averaged over the channels: ``(B, h, w)``."""
    return jnp.mean(jnp.square(first - second), axis=-1)


def anomaly_map(
    images: jax.Array, reconstruction: jax.Array, blur: Blur, valid: jax.Array | None = None
) -> jax.Array:
    """The smoothed `squared_map` of images ``(B, H, W, C)`` in [-1, 1]. Not in the paper.

    `blur` holds the `blur_matrix` of the height and of the width. With `valid` ``(B, H, W, 1)``,
    1.0 where a pixel counts and 0.0 elsewhere, smoothing is a mean over what counts, and the map is
    0 elsewhere. Returns ``(B, H, W)`` in [0, 4].
    """

    def smooth(values: jax.Array) -> jax.Array:
        return jnp.einsum("ih,bhw,jw->bij", blur[0], values, blur[1], precision=_HIGHEST)

    error = squared_map(images, reconstruction)
    if valid is None:
        return smooth(error)
    counts = valid[..., 0]
    weight = jnp.where(counts > 0, smooth(counts), 1.0)
    return counts * smooth(counts * error) / weight


def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """The matrix B of a Gaussian filter along an axis of `size` pixels, with reflected edges.

    `sigma` is the standard deviation in pixels; 0 gives the identity. B is float32 ``(size,
    size)``; ``B @ map @ B.T`` smooths a map.
    """
    identity = np.eye(size)
    if sigma > 0:
        identity = ndimage.gaussian_filter1d(identity, sigma, axis=0, mode="reflect")
    return identity.astype(np.float32)


def anomaly_score(
    reconstruction: np.ndarray, alignment: np.ndarray | None, gamma: float
) -> np.ndarray:
    """Fuses the scaled scores, Eq. (7): ``A(x) = gamma R(x) + (1 - gamma) L(x)``.

    Both scores are ``(n,)`` and already scaled, and gamma is in [0, 1]. With gamma 1, L(x) may be
    None; with gamma below 1 that raises ValueError.
    """
    if alignment is None:
        if gamma < 1:
            raise ValueError(f"gamma {gamma} needs alignment scores")
        return reconstruction
    return gamma * reconstruction + (1 - gamma) * alignment


def relative_map(maps: np.ndarray, normal_map: np.ndarray) -> np.ndarray:
    """Divides non-negative maps ``(n, H, W)`` by the mean map ``(H, W)`` of normal images.

    Values of the mean map below a hundredth of its own mean are raised to that. Returns ``(n, H,
    W)``: 1 where an image has the error of normal images.
    """
    floor = max(0.01 * float(normal_map.mean()), float(np.finfo(np.float32).tiny))
    return maps / np.maximum(normal_map, floor)[None]


def map_maximum(maps: np.ndarray) -> np.ndarray:
    """The maximum of each map ``(n, H, W)``, float64 ``(n,)``."""
    return maps.max(axis=(1, 2)).astype(np.float64)


def map_contrast(maps: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """The maximum of each map divided by its median: how much the worst place stands out.

    Some images are harder to rebuild everywhere; the division removes that effect. The maps
    ``(n, H, W)`` are not negative. The median is that of the pixels that count, by `valid` bool
    ``(n, H, W)``. Returns float64 ``(n,)``, at least 1 unless a map is zero. A median of 0 counts
    as the smallest normal float32.
    """
    median = map_quantile(maps, 0.5, valid)
    return map_maximum(maps) / median.clip(float(np.finfo(np.float32).tiny))


def map_quantile(maps: np.ndarray, quantile: float, valid: np.ndarray | None = None) -> np.ndarray:
    """A quantile in [0, 1] of each map ``(n, H, W)``, float64 ``(n,)``.

    It is that of the pixels that count, by `valid` bool ``(n, H, W)``.
    """
    xp = maps.__array_namespace__()
    if valid is None:
        return xp.quantile(maps, quantile, axis=(1, 2)).astype(np.float64)
    counted = xp.where(valid, maps, np.nan)
    return xp.nanquantile(counted, quantile, axis=(1, 2)).astype(np.float64)


def _fused(inputs: ScoreInputs, protocol: str) -> np.ndarray:
    raw, scales = inputs.raw, inputs.scales[protocol]
    alignment = None
    if raw.alignment_score is not None and scales.alignment is not None:
        alignment = scales.alignment(raw.alignment_score)
    reconstruction = scales.reconstruction(raw.reconstruction_score)
    return anomaly_score(reconstruction, alignment, inputs.settings.gamma)


def _map(inputs: ScoreInputs, *, features: bool = False, relative: bool = False) -> np.ndarray:
    """The anomaly map or the feature map of each image, perhaps relative to normal images."""
    name = "feature_map" if features else "anomaly_map"
    maps: np.ndarray = getattr(inputs.raw, name)
    return relative_map(maps, getattr(inputs.reference, name)) if relative else maps


COMPONENTS = ("R", "R_max_relative", "R_quantile_relative", "R_contrast_relative", "L")
"""The scores whose deviations from good images ``combined`` joins."""


def component_scores(inputs: ScoreInputs) -> dict[str, np.ndarray]:
    """The scores of `COMPONENTS` whose needs are met, float64 ``(n,)`` each."""
    return {
        name: SCORES[name].function(inputs)
        for name in COMPONENTS
        if all(NEEDS[need](inputs) for need in SCORES[name].needs)
    }


def _combined(inputs: ScoreInputs) -> np.ndarray:
    """Fisher's combination of p-values, ``-sum log p``, with normal tails of the deviations."""
    first, *others = map(log_tail, _deviations(inputs).values())
    return -sum(others, first)


def _deviations(inputs: ScoreInputs) -> dict[str, np.ndarray]:
    return {
        name: inputs.deviations[name](values, inputs.raw.light)
        for name, values in component_scores(inputs).items()
        if name in inputs.deviations
    }


SCORES: dict[str, Score] = {
    "R": Score(
        lambda x: x.raw.reconstruction_score, "reconstruction error, mean over pixels", True
    ),
    "L": Score(
        lambda x: cast(np.ndarray, x.raw.alignment_score),
        "difference of the discriminator's features, mean",
        True,
        _FEATURES,
    ),
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
        lambda x: map_quantile(x.raw.anomaly_map, x.settings.map_quantile, x.raw.valid),
        "upper quantile of the anomaly map",
    ),
    "L_max": Score(
        lambda x: map_maximum(_map(x, features=True)), "maximum of the feature map", needs=_FEATURES
    ),
    "R_max_relative": Score(
        lambda x: map_maximum(_map(x, relative=True)),
        "maximum of the relative map",
        True,
        _REFERENCE,
    ),
    "R_quantile_relative": Score(
        lambda x: map_quantile(_map(x, relative=True), x.settings.map_quantile, x.raw.valid),
        "upper quantile of the relative map",
        needs=_REFERENCE,
    ),
    "R_contrast_relative": Score(
        lambda x: map_contrast(_map(x, relative=True), x.raw.valid),
        "maximum over median of the relative map",
        True,
        _REFERENCE,
    ),
    "L_max_relative": Score(
        lambda x: map_maximum(_map(x, features=True, relative=True)),
        "maximum of the relative feature map",
        needs=(*_FEATURES, *_REFERENCE),
    ),
    "R_deviation": Score(
        lambda x: _deviations(x)["R"],
        "R above that of good images with the same light, in standard deviations",
        needs=("deviations",),
    ),
    "combined": Score(
        _combined,
        "p-values of R, R_max_relative, R_quantile_relative, R_contrast_relative and L among good "
        "images with the same light, combined by Fisher's method",
        True,
        ("deviations", *_REFERENCE),
    ),
}
"""Every score by name, in the order of tables and files."""
