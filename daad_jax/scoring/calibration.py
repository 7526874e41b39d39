"""Calibration with normal images: the scales of A, the threshold, and the reference maps."""

import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daad_jax.config import ScoreConfig
from daad_jax.errors import CheckpointError
from daad_jax.runtime.files import replacing, write_json
from daad_jax.scoring.scores import (
    NEEDS,
    SCORES,
    MinMax,
    RawScores,
    Reference,
    Scales,
    ScoreInputs,
    fit_scales,
)

CALIBRATION_FILE = "calibration.json"
REFERENCE_FILE = "reference.npz"


class Calibration(NamedTuple):
    """The protocol `calibrated`: scales and a threshold from held-out normal images.

    Attributes:
        step: the number of updates of the calibrated state.
        decision: the score that the threshold is for.
        scales: normalisers of R and L.
        threshold: an image is called defective if its decision score is at or above it.
    """

    step: int
    decision: str
    scales: Scales
    threshold: float


def calibrate(
    raw: RawScores, step: int, settings: ScoreConfig, reference: Reference | None
) -> Calibration:
    """Fits scales and a threshold to held-out normal images.

    Args:
        raw: the scores of n >= 1 held-out normal images.
        step: the number of updates of the state.
        settings: names the decision score, and the quantile of it that is the threshold.
        reference: mean maps for relative scores.

    Raises:
        CheckpointError: if the decision score is relative and there is no reference.
    """
    uncut = Calibration(step, settings.decision, fit_scales(raw), 0.0)
    values = decision_score(raw, settings, uncut, reference)
    return uncut._replace(threshold=float(np.quantile(values, settings.threshold_quantile)))


def fit_reference(raw: RawScores, step: int) -> Reference:
    """Averages the maps of normal training images.

    Args:
        raw: the scores of n >= 1 normal images.
        step: the number of updates of the state.
    """
    features = None if raw.feature_map is None else raw.feature_map.mean(axis=0)
    return Reference(step, raw.anomaly_map.mean(axis=0), features)


def calibrated_inputs(
    raw: RawScores,
    settings: ScoreConfig,
    calibration: Calibration | None,
    reference: Reference | None,
) -> ScoreInputs:
    """The inputs of scores for single images: A is calibrated, or missing without calibration."""
    scales = {} if calibration is None else {"calibrated": calibration.scales}
    return ScoreInputs(raw, settings, scales, "calibrated", reference)


def decision_score(
    raw: RawScores, settings: ScoreConfig, calibration: Calibration, reference: Reference | None
) -> np.ndarray:
    """The score `score.decision` that is compared with the threshold, float64 ``(n,)``.

    Raises:
        CheckpointError: if it needs the reference and there is none.
    """
    inputs = calibrated_inputs(raw, settings, calibration, reference)
    score = SCORES[settings.decision]
    missing = [need for need in score.needs if not NEEDS[need](inputs)]
    if missing:
        raise CheckpointError(
            f"{REFERENCE_FILE}: is missing, and {settings.decision} needs it; run eval.py to write "
            "it again"
        )
    return score.function(inputs)


def save_reference(folder: Path, reference: Reference) -> None:
    """Writes ``reference.npz``."""
    values = {name: value for name, value in reference._asdict().items() if value is not None}
    with replacing(folder / REFERENCE_FILE) as partial, partial.open("wb") as file:
        np.savez(file, **values)


def load_reference(folder: Path, step: int) -> Reference | None:
    """Reads ``reference.npz``; returns None if there is none.

    Args:
        folder: the run's folder.
        step: the number of updates of the checkpoint.

    Raises:
        CheckpointError: if the file is damaged or belongs to another step.
    """
    path = folder / REFERENCE_FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as values:
            features = values.get("feature_map")
            reference = Reference(int(values["step"]), values["anomaly_map"], features)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read; run eval.py to write it again") from error
    _check_step(path, reference.step, step)
    return reference


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes ``calibration.json``."""
    scales = {
        name: scale and scale._asdict() for name, scale in calibration.scales._asdict().items()
    }
    write_json(folder / CALIBRATION_FILE, {**calibration._asdict(), "scales": scales})


def load_calibration(folder: Path, step: int, decision: str) -> Calibration | None:
    """Reads ``calibration.json``; returns None if there is none.

    Args:
        folder: the run's folder.
        step: the number of updates of the checkpoint.
        decision: the config's `score.decision`.

    Raises:
        CheckpointError: if the file is damaged or belongs to another step or another decision.
    """
    path = folder / CALIBRATION_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        alignment = values["scales"]["alignment"]
        reconstruction = MinMax(**values["scales"]["reconstruction"])
        scales = Scales(reconstruction, alignment and MinMax(**alignment))
        own, threshold = str(values["decision"]), float(values["threshold"])
        calibration = Calibration(int(values["step"]), own, scales, threshold)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read; run eval.py to write it again") from error
    _check_step(path, calibration.step, step)
    if own != decision:
        raise CheckpointError(
            f"{path}: has the threshold of {own}, the config decides by {decision}; run eval.py to "
            "write it again"
        )
    return calibration


def _check_step(path: Path, own: int, step: int) -> None:
    if own != step:
        raise CheckpointError(
            f"{path}: belongs to step {own}, the checkpoint to step {step}; run eval.py to write "
            "it again"
        )
