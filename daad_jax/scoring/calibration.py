"""Calibration with normal images: the scales of A, the threshold, and the reference maps."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daad_jax.config import ScoreConfig
from daad_jax.errors import CheckpointError
from daad_jax.runtime.files import replacing, write_json
from daad_jax.scoring import scores
from daad_jax.scoring.deviation import Deviation, fit_deviation
from daad_jax.scoring.scores import MinMax, RawScores, Reference, Scales, ScoreInputs, fit_scales

CALIBRATION_FILE = "calibration.json"
REFERENCE_FILE = "reference.npz"
_SETTINGS = ("gamma", "map_sigma", "map_quantile", "threshold_quantile")


class Calibration(NamedTuple):
    """The protocol `calibrated`: scales and a threshold from held-out normal images.

    `step` is the number of updates of the calibrated state. An image is called defective if its
    score named `decision` is at or above the threshold. `deviations` are models of the good images'
    scores, by name. `settings` are the score settings that the threshold depends on.
    """

    step: int
    decision: str
    scales: Scales
    threshold: float
    deviations: dict[str, Deviation]
    settings: dict[str, Any]


def calibrate(
    raw: RawScores, step: int, settings: ScoreConfig, reference: Reference | None
) -> Calibration:
    """Fits scales and a threshold to the scores of n >= 1 held-out normal images.

    The threshold is the quantile `score.threshold_quantile` of the score `score.decision`. Raises
    CheckpointError if that score is relative and there is no reference.
    """
    used = {name: getattr(settings, name) for name in _SETTINGS}
    made = Calibration(step, settings.decision, fit_scales(raw), 0.0, {}, used)
    components = scores.component_scores(calibrated_inputs(raw, settings, made, reference))
    made = made._replace(
        deviations={name: fit_deviation(one, raw.light) for name, one in components.items()}
    )
    values = decision_score(raw, settings, made, reference)
    return made._replace(threshold=float(np.quantile(values, settings.threshold_quantile)))


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
        used = dict(values["settings"])
        return Calibration(int(values["step"]), own, Scales(**pairs), threshold, deviations, used)

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
