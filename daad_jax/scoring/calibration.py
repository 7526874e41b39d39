"""Calibration with normal images: the scales of A, the threshold, and the reference maps."""

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from daad_jax.config import ScoreConfig
from daad_jax.errors import CheckpointError, warn
from daad_jax.runtime.files import replacing, write_json
from daad_jax.scoring import conformal, scores
from daad_jax.scoring.deviation import Deviation, fit_deviation
from daad_jax.scoring.maps import shown_maps
from daad_jax.scoring.scores import MinMax, RawScores, Reference, Scales, ScoreInputs, fit_scales

CALIBRATION_FILE = "calibration.json"
REFERENCE_FILE = "reference.npz"
_SETTINGS = ("gamma", "map_sigma", "map", "map_scales", "map_quantile", "threshold_quantile")
_HELD_OUT = "held-out"
_FOLDS = 10


class Origin(NamedTuple):
    """What a threshold was made from.

    `kind` is "quantile" (of the good scores), "rate" (of false alarms), "value" (given as such) or
    "best_f1" (fitted to `fitted_on` labelled test images), and `value` is the number that was asked
    for; for "best_f1" it is that F1. `good` says which good images the scores are of: "held-out" or
    "new".
    """

    kind: str
    value: float
    good: str
    fitted_on: int = 0

    @property
    def is_default(self) -> bool:
        """Whether `calibrate` made it, and nobody chose another threshold after the training."""
        return self.kind == "quantile" and self.good == _HELD_OUT


class Calibration(NamedTuple):
    """The protocol `calibrated`: scales and a threshold from held-out normal images.

    `step` is the number of updates of the calibrated state. An image is called defective if its
    score named `decision` is at or above the threshold. `deviations` are models of the good images'
    scores, by name. `settings` are the score settings that the threshold depends on. `origin` is
    that of the threshold. `good_scores` are the decision scores of the n normal images, ascending,
    and `good_maxima` the maxima of their anomaly maps, ascending.
    """

    step: int
    decision: str
    scales: Scales
    threshold: float
    deviations: dict[str, Deviation]
    settings: dict[str, Any]
    origin: Origin
    good_scores: tuple[float, ...]
    good_maxima: tuple[float, ...]

    @property
    def pixel_threshold(self) -> float:
        """What a pixel of an anomaly map must exceed to be marked.

        Maps of as many of the n normal images exceed it somewhere as have a score that reaches the
        threshold (at least one image does not exceed it).
        """
        good = np.asarray(self.good_scores)
        reaching = len(good) - int(np.searchsorted(good, self.threshold))
        return self.good_maxima[-1 - min(reaching, len(good) - 1)]

    @property
    def false_alarms(self) -> conformal.FalseAlarms:
        """What the normal images promise about the share of them that is called defective."""
        return conformal.false_alarms(np.asarray(self.good_scores), self.threshold)

    def describe(self) -> str:
        """What the threshold was made from and what it promises, without a full stop."""
        origin, alarms = self.origin, self.false_alarms
        pictures = f"{len(self.good_scores)} {origin.good} good pictures"
        made = {
            "quantile": f"the {origin.value:g} quantile of {pictures}",
            "rate": f"a false-alarm rate of {conformal.percent(origin.value)} on {pictures}",
            "value": f"a value given by hand; on {pictures}",
            "best_f1": f"the best F1 ({origin.value:.3f}) on {origin.fitted_on} labelled test "
            f"pictures, fitted on them; on {pictures}",
        }[origin.kind]
        low, high = conformal.percent(alarms.low), conformal.percent(alarms.high)
        return (
            f"{made}: at most {conformal.percent(alarms.expected)} false alarms expected, 95 % "
            f"interval {low} to {high}"
        )


def calibrate(
    raw: RawScores, step: int, settings: ScoreConfig, reference: Reference | None
) -> Calibration:
    """Fits scales and a threshold to the scores of n >= 1 held-out normal images.

    The threshold is the quantile `score.threshold_quantile` of the score `score.decision`. An
    image's own score would be too low if the deviations were fitted to that image too, as those of
    a new image are not. So for the threshold each tenth of the images is scored with deviations
    fitted to the others. Raises CheckpointError if the score is relative and there is no reference.
    """
    used = {name: getattr(settings, name) for name in _SETTINGS}
    origin = Origin("quantile", settings.threshold_quantile, _HELD_OUT)
    made = Calibration(step, settings.decision, fit_scales(raw), 0.0, {}, used, origin, (), ())
    made = made._replace(deviations=_fit_deviations(made, raw, settings, reference))
    values, count = [], len(raw.reconstruction_score)
    for fold in np.array_split(np.arange(count), min(_FOLDS, count)):
        others = np.setdiff1d(np.arange(count), fold) if count > 1 else fold
        fitted = _fit_deviations(made, _take(raw, others), settings, reference)
        part = made._replace(deviations=fitted)
        values.append(decision_score(_take(raw, fold), settings, part, reference))
    return _with_good(made, np.concatenate(values), shown_maps(raw, settings, reference), settings)


def _fit_deviations(
    calibration: Calibration, raw: RawScores, settings: ScoreConfig, reference: Reference | None
) -> dict[str, Deviation]:
    inputs = calibrated_inputs(raw, settings, calibration, reference)
    components = scores.component_scores(inputs)
    return {name: fit_deviation(one, raw.light) for name, one in components.items()}


def _take(raw: RawScores, index: np.ndarray) -> RawScores:
    """The raw scores of some images. Empty arrays, such as reconstructions left out, stay empty."""
    taken: RawScores = jax.tree.map(lambda array: array[index] if len(array) else array, raw)
    return taken


def recalibrate(
    calibration: Calibration, raw: RawScores, settings: ScoreConfig, reference: Reference | None
) -> Calibration:
    """Takes the threshold from n >= 1 new normal images. The score itself stays as it is.

    So nothing is fitted to the new images but the threshold. A false-alarm rate that was asked for
    before is kept; otherwise the threshold is the quantile `score.threshold_quantile` again. Raises
    what `decision_score` raises.
    """
    rate = calibration.origin.value if calibration.origin.kind == "rate" else None
    origin = Origin("quantile", settings.threshold_quantile, "new")
    values = decision_score(raw, settings, calibration, reference)
    calibration = calibration._replace(origin=origin)
    made = _with_good(calibration, values, shown_maps(raw, settings, reference), settings)
    return made if rate is None else with_rate(made, rate)


def with_rate(calibration: Calibration, rate: float) -> Calibration:
    """The same calibration with the threshold of a false-alarm rate in (0, 1).

    Prints a warning if there are too few normal images to promise it.
    """
    good = np.asarray(calibration.good_scores)
    best = conformal.best_rate(len(good))
    if rate < best:
        warn(
            f"{len(good)} pictures cannot promise {conformal.percent(rate)}: at best "
            f"{conformal.percent(best)}; calibrate on at least {math.ceil(1 / rate) - 1} good ones"
        )
    origin = calibration.origin._replace(kind="rate", value=rate, fitted_on=0)
    return calibration._replace(threshold=conformal.rate_threshold(good, rate), origin=origin)


def with_threshold(calibration: Calibration, threshold: float) -> Calibration:
    """The same calibration with a threshold that is given."""
    origin = calibration.origin._replace(kind="value", value=threshold, fitted_on=0)
    return calibration._replace(threshold=threshold, origin=origin)


def with_best_f1(calibration: Calibration, threshold: float, f1: float, images: int) -> Calibration:
    """The same calibration with a threshold that was fitted to labelled test images.

    `f1` is the F1 that it has on those `images`.
    """
    origin = calibration.origin._replace(kind="best_f1", value=f1, fitted_on=images)
    return calibration._replace(threshold=threshold, origin=origin)


def _with_good(
    calibration: Calibration, values: np.ndarray, maps: np.ndarray, settings: ScoreConfig
) -> Calibration:
    """Keeps the decision scores ``(n,)`` of normal images and takes the threshold from them.

    `maps` ``(n, H, W)`` are the maps that are shown.
    """
    return calibration._replace(
        threshold=float(np.quantile(values, settings.threshold_quantile)),
        good_scores=tuple(np.sort(values).tolist()),
        good_maxima=tuple(np.sort(scores.map_maximum(maps)).tolist()),
    )


def fit_reference(raw: RawScores, step: int) -> Reference:
    """Averages the maps of n >= 1 normal training images; `step` is that of the state.

    Pixels that count in no image get the mean of the others.
    """
    features = None if raw.feature_map is None else raw.feature_map.mean(axis=0)
    if raw.valid is None:
        return Reference(step, raw.anomaly_map.mean(axis=0), features)
    counts = raw.valid.sum(axis=0)
    mean = raw.anomaly_map.sum(axis=0) / np.maximum(counts, 1)
    mean = np.where(counts > 0, mean, mean[counts > 0].mean())
    return Reference(step, mean.astype(np.float32), features)


def calibrated_inputs(
    raw: RawScores,
    settings: ScoreConfig,
    calibration: Calibration | None,
    reference: Reference | None,
) -> ScoreInputs:
    """The score inputs for single images: A is calibrated, or left out without calibration."""
    scales = {} if calibration is None else {"calibrated": calibration.scales}
    deviations = {} if calibration is None else calibration.deviations
    return ScoreInputs(raw, settings, scales, "calibrated", reference, deviations)


def decision_score(
    raw: RawScores, settings: ScoreConfig, calibration: Calibration, reference: Reference | None
) -> np.ndarray:
    """The score `score.decision`, which is compared with the threshold, float64 ``(n,)``.

    Raises CheckpointError if it needs the reference and there is none.
    """
    inputs = calibrated_inputs(raw, settings, calibration, reference)
    score = scores.SCORES[settings.decision]
    missing = [need for need in score.needs if not scores.NEEDS[need](inputs)]
    if missing:
        raise CheckpointError(
            f"{REFERENCE_FILE}: is missing, and {settings.decision} needs it; run eval.py to write "
            "it again"
        )
    return score.function(inputs)


def judge(
    calibration: Calibration, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What decision scores ``(n,)`` mean.

    Returns the calibrated scores, float64 (see `conformal.relative_score`), the conformal p-values,
    float64, and whether each score reaches the threshold, bool; all ``(n,)``.
    """
    good = np.asarray(calibration.good_scores)
    return (
        conformal.relative_score(good, calibration.threshold, values),
        conformal.p_values(good, values),
        values >= calibration.threshold,
    )


def decide(
    raw: RawScores,
    settings: ScoreConfig,
    calibration: Calibration | None,
    reference: Reference | None,
) -> np.ndarray | None:
    """Whether each decision score reaches the threshold, bool ``(n,)``; None if uncalibrated."""
    if calibration is None:
        return None
    if not len(raw.reconstruction_score):
        return np.zeros(0, bool)
    return decision_score(raw, settings, calibration, reference) >= calibration.threshold


def save_reference(folder: Path, reference: Reference) -> None:
    """Writes ``reference.npz`` into a run's folder."""
    values = {name: value for name, value in reference._asdict().items() if value is not None}
    with replacing(folder / REFERENCE_FILE) as partial, partial.open("wb") as file:
        np.savez(file, **values)


def load_reference(folder: Path, step: int) -> Reference | None:
    """Reads ``reference.npz`` of a run's folder, or returns None if there is no such file.

    Raises CheckpointError if the file is damaged or belongs to another step.
    """

    def read(path: Path) -> Reference:
        with np.load(path, allow_pickle=False) as values:
            features = values.get("feature_map")
            return Reference(int(values["step"]), values["anomaly_map"], features)

    return _read(folder / REFERENCE_FILE, step, read)


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes ``calibration.json`` into a run's folder."""
    scales = {
        name: scale and scale._asdict() for name, scale in calibration.scales._asdict().items()
    }
    deviations = {name: one._asdict() for name, one in calibration.deviations.items()}
    values = calibration._asdict() | {"scales": scales, "deviations": deviations}
    values["origin"] = calibration.origin._asdict()
    write_json(folder / CALIBRATION_FILE, values)


def load_calibration(folder: Path, step: int, settings: ScoreConfig) -> Calibration | None:
    """Reads ``calibration.json`` of a run's folder, or returns None if there is no such file.

    Raises CheckpointError if the file is damaged or belongs to another step or other settings.
    """

    def read(path: Path) -> Calibration:
        values = json.loads(path.read_text())
        pairs = {name: pair and MinMax(**pair) for name, pair in values["scales"].items()}
        own, threshold = str(values["decision"]), float(values["threshold"])
        deviations = {name: Deviation(**one) for name, one in values["deviations"].items()}
        return Calibration(
            int(values["step"]),
            own,
            Scales(**pairs),
            threshold,
            deviations,
            {k: tuple(v) if isinstance(v, list) else v for k, v in values["settings"].items()},
            Origin(**values["origin"]),
            tuple(map(float, values["good_scores"])),
            tuple(map(float, values["good_maxima"])),
        )

    path = folder / CALIBRATION_FILE
    calibration = _read(path, step, read)
    if calibration is None:
        return None
    for name, value in {"decision": calibration.decision, **calibration.settings}.items():
        if getattr(settings, name, None) != value:
            raise CheckpointError(
                f"{path}: is for score.{name}={value!r}, the config has another; run eval.py to "
                "write it again"
            )
    return calibration


def load_chosen(folder: Path, step: int, settings: ScoreConfig) -> Calibration | None:
    """Reads ``calibration.json`` if its threshold was chosen after the training.

    Returns None if it was not, or if the file is missing, damaged, or of another step or other
    settings.
    """
    try:
        stored = load_calibration(folder, step, settings)
    except CheckpointError:
        return None
    return None if stored is None or stored.origin.is_default else stored


def _read(path: Path, step: int, read: Callable[[Path], Any]) -> Any:
    if not path.exists():
        return None
    try:
        values = read(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read; run eval.py to write it again") from error
    if values.step != step:
        raise CheckpointError(
            f"{path}: belongs to step {values.step}, the checkpoint to step {step}; run eval.py to "
            "write it again"
        )
    return values
