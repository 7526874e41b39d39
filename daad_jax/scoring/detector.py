"""`Detector`, which scores new images with a trained run, and `load`, which opens the run."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from daad_jax.addressing import parse_rule
from daad_jax.config import Config
from daad_jax.data import decode
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.runtime.files import user_path
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring.calibration import Calibration
from daad_jax.scoring.maps import shown_maps
from daad_jax.scoring.scorer import Scorer
from daad_jax.scoring.scores import Reference, check_decision, compute_scores
from daad_jax.train.state import restore_state
from daad_jax.workdir.run import load_config


class Result(NamedTuple):
    """What `Detector.score` returns for n images.

    Attributes:
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

    anomaly_score: np.ndarray | None
    reconstruction_score: np.ndarray
    alignment_score: np.ndarray | None
    defective: np.ndarray | None
    scores: dict[str, np.ndarray]
    anomaly_map: np.ndarray
    reconstruction: np.ndarray


class Detector:
    """Trained networks with their calibration, ready to score images."""

    def __init__(
        self,
        config: Config,
        scorer: Scorer,
        calibration: Calibration | None,
        reference: Reference | None,
    ) -> None:
        """Takes the parts; `load` makes a detector from a run's folder."""
        self.config = config
        self._scorer, self._calibration, self._reference = scorer, calibration, reference

    @property
    def threshold(self) -> float | None:
        """The decision score from which images are defective; None without calibration."""
        return None if self._calibration is None else self._calibration.threshold

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
        prepared = [self._prepare(image) for image in images]
        if not prepared:
            raise ValueError("no images to score")
        raw = self._scorer(np.stack(prepared))
        settings, calibration = self.config.score, self._calibration
        named = compute_scores(
            calibration_lib.calibrated_inputs(raw, settings, calibration, self._reference)
        )
        defective = calibration_lib.decide(raw, settings, calibration, self._reference)
        return Result(
            named.get("A"),
            raw.reconstruction_score,
            raw.alignment_score,
            defective,
            named,
            shown_maps(raw, settings, self._reference),
            raw.reconstruction,
        )

    def _prepare(self, image: Any) -> np.ndarray:
        config = self.config.data
        if isinstance(image, (str, os.PathLike)):
            return decode.decode_image(decode.read_bytes(user_path(image)), str(image), config)
        if isinstance(image, Image.Image):
            raise ValueError(
                "a Pillow image has lost parts of its file, such as the range of its values; give "
                'the path of the file, or an array such as np.asarray(image.convert("RGB"))'
            )
        return decode.resize_array(_check_image(image), config)


def load(workdir: str | Path, *, allow_custom_code: bool = False) -> Detector:
    """Loads the last checkpoint of a run.

    Args:
        workdir: the folder of a run of one category, with ``config.json``.
        allow_custom_code: whether an addressing rule that the config names as ``module:name`` is
            imported. Allow it only for workdirs that you trust.

    Returns:
        A `Detector`.

    Raises:
        CheckpointError: if the folder has no sound checkpoint.
        ConfigError: if the config names an unknown score, or custom code that is not allowed or
            cannot be imported.
    """
    folder = user_path(workdir)
    config = load_config(folder)
    check_decision(config)
    rule = parse_rule(config.memory.addressing, allow_custom_code=allow_custom_code)
    networks = build_networks(config, rule)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    state = restore_state(folder, config, networks, mesh)
    scorer = Scorer(networks, state.eval_variables, config, mesh)
    step = int(state.step)
    calibration = calibration_lib.load_calibration(folder, step, config.score)
    return Detector(config, scorer, calibration, calibration_lib.load_reference(folder, step))


def _check_image(image: Any) -> np.ndarray:
    array = np.asarray(image)
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
    if array.dtype != np.uint8 or not shaped or array.size == 0:
        raise ValueError(
            f"an image is {array.dtype} {array.shape}; expected uint8 (H, W), (H, W, 1) or "
            "(H, W, 3) in 0 to 255"
        )
    return array
