"""``calibrate``: changes the threshold of a trained run."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags

from daad_jax.cli import flags as own_flags
from daad_jax.cli.predict import choose_threshold, define_threshold
from daad_jax.cli.progress import Counter
from daad_jax.data import load_dataset
from daad_jax.data.inputs import list_inputs
from daad_jax.errors import ConfigError, DataError, warn
from daad_jax.evaluation import metrics
from daad_jax.runtime.files import user_path
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring.calibration import CALIBRATION_FILE, Calibration
from daad_jax.scoring.detector import Detector, load
from daad_jax.scoring.stream import decode_files
from daad_jax.workdir import lock
from daad_jax.workdir.run import load_config


def run(argv: Sequence[str]) -> None:
    """Writes ``calibration.json`` with another threshold and prints what it promises.

    `argv` is "calibrate", the workdir, new good pictures if any, and flags. Raises UserError if the
    flags, the workdir or a picture cannot be used.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may follow the pictures
    define_threshold(values)
    flags.DEFINE_bool("best_f1", False, "Fit to the labelled test pictures.", flag_values=values)
    own_flags.define_custom_code(values)
    words = own_flags.parse_flags(values, argv, positional=True)
    rate, threshold = values.false_alarm_rate, values.threshold
    if not words:
        raise ConfigError("calibrate: give a workdir, calibrate WORKDIR [GOOD_PICTURE ...]")
    if values.best_f1 and (rate, threshold) != (None, None):
        raise ConfigError("--best_f1: give it, --threshold or --false_alarm_rate")
    if not (words[1:] or values.best_f1) and (rate, threshold) == (None, None):
        raise ConfigError(
            "calibrate: give new good pictures, --false_alarm_rate, --threshold or --best_f1"
        )
    workdir = user_path(words[0])
    load_config(workdir)  # before a lock file is created in it
    with lock.hold(workdir):
        detector = load(workdir, allow_custom_code=values.allow_custom_code)
        calibration = detector.calibration
        if words[1:]:
            calibration = _recalibrate(detector, workdir, words[1:])
        if calibration is None:
            raise ConfigError(
                f"{workdir}: no good pictures were held out; give some, calibrate WORKDIR GOOD ..."
            )
        calibration = choose_threshold(calibration, rate, threshold)
        if values.best_f1:
            calibration = _fit_f1(detector, workdir, calibration)
        calibration_lib.save_calibration(workdir, calibration)
    print(f"threshold of {calibration.decision}: {calibration.threshold:.5g}")
    print(f"from {calibration.describe()}")
    print(f"{CALIBRATION_FILE} is written; evaluate again to renew the report")


def _recalibrate(detector: Detector, workdir: Path, inputs: Sequence[str]) -> Calibration:
    """Takes the threshold from new good pictures; all of a calibration if there is none yet."""
    listed = list_inputs(inputs, sys.stdin, without=workdir)
    counter, parts = Counter(len(listed.files)), []
    for decoded in decode_files(detector, listed.files):
        for path, reason in decoded.errors.items():
            warn(f"{path}: {reason}; it is left out")
        if decoded.pixels is not None:
            raw = detector.raw_scores(decoded.pixels)
            parts.append(raw._replace(reconstruction=raw.reconstruction[:0]))  # not needed
        counter.add(len(decoded.paths))
    counter.close()
    if not parts:
        raise DataError("calibrate: the inputs hold no picture that can be used; give others")
    raw = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    known, settings = detector.calibration, detector.config.score
    if known is not None:
        return calibration_lib.recalibrate(known, raw, settings, detector.reference)
    made = calibration_lib.calibrate(raw, detector.step, settings, detector.reference)
    return made._replace(origin=made.origin._replace(good="new"))


def _fit_f1(detector: Detector, workdir: Path, calibration: Calibration) -> Calibration:
    """Takes the threshold with the best F1 on the labelled test pictures."""
    config = detector.config
    test = load_dataset(config.data, config.data.category, workdir / "cache").test
    if not metrics.both_classes(test.labels):
        raise DataError("--best_f1: needs good and defective test pictures; see data.test_root")
    scores = detector.with_calibration(calibration).score_prepared(test.images).decision_score
    f1, threshold = metrics.best_f1(test.labels, scores)
    return calibration_lib.with_best_f1(calibration, threshold, f1, len(test))
