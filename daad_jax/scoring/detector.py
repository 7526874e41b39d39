"""`Detector`, which scores new images with a trained run, and `load`, which opens the run."""

import functools
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from daad_jax.addressing import parse_rule
from daad_jax.config import Config, set_field, validate
from daad_jax.data import decode
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.runtime.files import user_path
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring.calibration import Calibration
from daad_jax.scoring.maps import shown_maps
from daad_jax.scoring.scorer import Scorer
from daad_jax.scoring.scores import (
    NEEDS,
    SCORES,
    RawScores,
    Reference,
    check_decision,
    compute_scores,
)
from daad_jax.train.state import restore_state
from daad_jax.workdir.run import load_config


class Result(NamedTuple):
    """What `Detector.score` returns for n images.

    Attributes:
        decision_score: the score `score.decision`, which is compared with the threshold, float64
            ``(n,)``. If that score needs a calibration and there is none, R(x).
        calibrated_score: the decision score on a scale where the median of the held-out good images
            has 0 and the threshold 1, float64 ``(n,)``. It is linear and never cut off: see
            `daad_jax.scoring.conformal.relative_score`. None without calibration.
        p_value: how often a good image has a decision score this high, float64 ``(n,)`` from
            1 / (held-out images + 1) to 1: see `daad_jax.scoring.conformal.p_values`. None without
            calibration.
        anomaly_score: the calibrated A(x), float64 ``(n,)``; about 0 to 1 for normal images. None
            if the run held out no images for calibration.
        reconstruction_score: R(x), unscaled, float64 ``(n,)``.
        alignment_score: L(x), unscaled, float64 ``(n,)``, or None without a discriminator.
        defective: bool ``(n,)``, whether the decision score is at or above the threshold; None
            without a threshold.
        scores: every score of `daad_jax.scoring.scores.SCORES` that can be computed for single
            images, float64 ``(n,)`` each, by name.
        anomaly_map: float32 ``(n, H, W)``, the map that `score.map` names, by default the smoothed
            squared error, at the model's image size.
        reconstruction: float32 ``(n, H, W, C)`` in [-1, 1].
    """

    decision_score: np.ndarray
    calibrated_score: np.ndarray | None
    p_value: np.ndarray | None
    anomaly_score: np.ndarray | None
    reconstruction_score: np.ndarray
    alignment_score: np.ndarray | None
    defective: np.ndarray | None
    scores: dict[str, np.ndarray]
    anomaly_map: np.ndarray
    reconstruction: np.ndarray


class Verdict(NamedTuple):
    """The fields of `Result` that the decision needs; all but the map and the score may be None."""

    decision_score: Any
    calibrated_score: Any
    p_value: Any
    defective: Any
    anomaly_map: Any


class Detector:
    """Trained networks with their calibration, ready to score images."""

    def __init__(
        self,
        config: Config,
        scorer: Scorer,
        step: int,
        calibration: Calibration | None,
        reference: Reference | None,
    ) -> None:
        """Takes the parts; `load` makes a detector from a run's folder.

        Attributes:
            step: the number of updates that the networks were trained for.
            calibration: the scales, the threshold and what it was made from; None if the run held
                out no images.
            reference: the mean maps of normal training images, or None.
        """
        self.config, self.step, self.scorer = config, step, scorer
        self.calibration, self.reference = calibration, reference

    @property
    def threshold(self) -> float | None:
        """The decision score from which images are defective; None without calibration."""
        return None if self.calibration is None else self.calibration.threshold

    @property
    def pixel_threshold(self) -> float | None:
        """The value of an anomaly map above which a pixel is marked; None without calibration."""
        return None if self.calibration is None else self.calibration.pixel_threshold

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the weights and of the reference maps, which scores depend on."""
        digest = hashlib.blake2b(digest_size=16)
        for leaf in jax.tree.leaves(jax.device_get((self.scorer.variables, self.reference))):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    def with_calibration(self, calibration: Calibration) -> "Detector":
        """The same detector with another calibration. Nothing is compiled again.

        `daad_jax.scoring.calibration.with_rate` and `with_threshold` make one from
        `Detector.calibration`.
        """
        return Detector(self.config, self.scorer, self.step, calibration, self.reference)

    def score(self, images: Any) -> Result:
        """Scores images.

        Args:
            images: a sequence of paths of image files, or of uint8 arrays ``(H, W)`` or ``(H, W,
                C)`` in 0 to 255 of any sizes, C 1 or 3; or one array ``(n, H, W, C)``. They are
                resized and converted like the training images.

        Returns:
            A `Result` for the n images.

        Raises:
            ValueError: for another dtype or shape, a Pillow image, an image that is not in a list,
                or no image.
            DataError: if a file cannot be read or is not an image; the message names it.
            NonFiniteError: if a score is not finite because the training has diverged.
        """
        single = isinstance(images, np.ndarray) and images.ndim < 4
        if single or isinstance(images, (str, os.PathLike, Image.Image)):
            raise ValueError("one image? put it into a list")
        prepared = [self.prepare(image) for image in images]
        if not prepared:
            raise ValueError("no images to score")
        return self.score_prepared(np.stack(prepared))

    def prepare(self, image: Any) -> np.ndarray:
        """Decodes, resizes and converts one image as `score` does; several threads may call it.

        Returns uint8 of the shape `daad_jax.data.frame.input_shape`. Raises what `score` raises.
        """
        config = self.config.data
        if isinstance(image, (str, os.PathLike)):
            return decode.decode_image(decode.read_bytes(user_path(image)), str(image), config)
        if isinstance(image, Image.Image):
            raise ValueError(
                "a Pillow image has lost parts of its file, such as the range of its values; give "
                'the path of the file, or an array such as np.asarray(image.convert("RGB"))'
            )
        return decode.resize_array(_check_image(image), config)

    def raw_scores(self, pixels: np.ndarray) -> RawScores:
        """What the networks compute for n >= 1 prepared images, uint8 ``(n, H, W, C)``."""
        return self.scorer(pixels)

    def score_prepared(self, pixels: np.ndarray) -> Result:
        """Scores n >= 1 images that `prepare` returned, uint8 ``(n, H, W, C)``.

        Raises NonFiniteError if a score is not finite because the training has diverged.
        """
        raw, settings = self.raw_scores(pixels), self.config.score
        named = compute_scores(
            calibration_lib.calibrated_inputs(raw, settings, self.calibration, self.reference)
        )
        verdict = self.judge(raw)
        return Result(
            verdict.decision_score,
            verdict.calibrated_score,
            verdict.p_value,
            named.get("A"),
            raw.reconstruction_score,
            raw.alignment_score,
            verdict.defective,
            named,
            verdict.anomaly_map,
            raw.reconstruction,
        )

    def judge(self, raw: RawScores) -> Verdict:
        """The decision score of n images, what it means and the map that is shown.

        Pure; the arrays of `raw` may be those of JAX, with 64-bit types enabled.
        """
        settings, calibration, reference = self.config.score, self.calibration, self.reference
        maps = shown_maps(raw, settings, reference)
        if calibration is not None:
            score = calibration_lib.decision_score(raw, settings, calibration, reference)
            return Verdict(score, *calibration_lib.judge(calibration, score), maps)
        inputs = calibration_lib.calibrated_inputs(raw, settings, None, reference)
        chosen = SCORES[settings.decision]
        known = all(NEEDS[need](inputs) for need in chosen.needs)
        score = chosen.function(inputs) if known else raw.reconstruction_score
        return Verdict(score, None, None, None, maps)


def load(
    workdir: str | Path, *, allow_custom_code: bool = False, batch_size: int | None = None
) -> Detector:
    """Loads the last checkpoint of a run.

    Args:
        workdir: the folder of a run of one category, with ``config.json``.
        allow_custom_code: whether an addressing rule that the config names as ``module:name`` is
            imported. Allow it only for workdirs that you trust.
        batch_size: the most images that are scored at once, by default `score.batch_size`.

    Returns:
        A `Detector`.

    Raises:
        CheckpointError: if the folder has no sound checkpoint.
        ConfigError: if the config names an unknown score, or custom code that is not allowed or
            cannot be imported, or the batch size is not from 1 to 4096.
    """
    folder = user_path(workdir)
    config = load_config(folder)
    check_decision(config)
    if batch_size is not None:
        set_field(config, "score.batch_size", batch_size)
        validate(config)
    rule = parse_rule(config.memory.addressing, allow_custom_code=allow_custom_code)
    networks = build_networks(config, rule)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    state = restore_state(folder, config, networks, mesh)
    scorer = Scorer(networks, state.eval_variables, config, mesh)
    step = int(state.step)
    calibration = calibration_lib.load_calibration(folder, step, config.score)
    reference = calibration_lib.load_reference(folder, step)
    return Detector(config, scorer, step, calibration, reference)


def _check_image(image: Any) -> np.ndarray:
    array = np.asarray(image)
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
    if array.dtype != np.uint8 or not shaped or array.size == 0:
        raise ValueError(
            f"an image is {array.dtype} {array.shape}; expected uint8 (H, W), (H, W, 1) or "
            "(H, W, 3) in 0 to 255"
        )
    return array
