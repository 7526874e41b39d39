"""``predict``: scores new pictures with a trained run."""

import contextlib
import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from daad_jax.cli import flags as own_flags
from daad_jax.cli.progress import Counter
from daad_jax.data import display_name
from daad_jax.data.inputs import Inputs, Watch, list_inputs
from daad_jax.errors import ConfigError, DataError, warn
from daad_jax.reports import predictions as report
from daad_jax.runtime import processes, signals
from daad_jax.runtime.files import user_path
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring.calibration import Calibration
from daad_jax.scoring.detector import Detector, load
from daad_jax.scoring.predictions import CSV_FILE, Predictions, row_path
from daad_jax.scoring.stream import decode_files
from daad_jax.workdir import lock

_OUTPUT = "predictions"  # in the workdir
_ALL = "all"
_POLL_SECONDS = 1.0


class _Run(NamedTuple):
    """The parts of one call. `maps` is how many of the worst pictures get maps; None is all."""

    title: str
    output: Path
    detector: Detector
    maps: int | None
    raw_maps: report.RawMaps | None


def run(argv: Sequence[str]) -> None:
    """Scores pictures, and writes a row for each, maps of the worst and a page.

    `argv` is "predict", the workdir, the inputs and flags. Raises UserError if the flags, the
    workdir or an input cannot be used. A picture that cannot be used is a row with its error.
    """
    values = _define_flags()
    words = own_flags.parse_flags(values, argv, positional=True)
    if not words:
        raise ConfigError("predict: give a workdir and pictures, predict WORKDIR INPUT ...")
    workdir, inputs = user_path(words[0]), words[1:]
    if not inputs:
        raise ConfigError("predict: give folders, globs or files to score, or - for a list")
    if values.distributed and (values.watch or "-" in inputs):
        raise ConfigError("--distributed: goes neither with --watch nor with a list on stdin")
    processes.join(values.distributed, apart=True)
    output = user_path(values.output or workdir / _OUTPUT)
    maps = None if values.maps == _ALL else _count(values.maps)
    listed = list_inputs(inputs, sys.stdin, without=output)
    _check_inputs(listed, watch=values.watch)
    detector = load(
        workdir, allow_custom_code=values.allow_custom_code, batch_size=values.batch_size
    )
    detector = _decide(detector, values.false_alarm_rate, values.threshold, workdir)
    title = f"{workdir.resolve().name} \u00b7 predictions"
    this = _Run(title, output, detector, maps, values.raw_maps)
    with contextlib.ExitStack() as held:
        opened: list[Predictions] = []

        def open_first() -> None:
            held.enter_context(lock.hold(output))
            opened.append(Predictions(output, detector))

        processes.in_first(open_first)
        predictions = opened[0] if opened else Predictions(output, detector, processes.index())
        held.callback(predictions.close)
        _predict(this, predictions, listed, watch=values.watch)


def choose_threshold(
    calibration: Calibration, rate: float | None, threshold: float | None
) -> Calibration:
    """The calibration with the threshold that the flags ask for, if any.

    Raises ConfigError for both flags, a rate outside of 0 to 1, or a threshold that is not finite.
    """
    if rate is not None and threshold is not None:
        raise ConfigError("--threshold: give it or --false_alarm_rate, not both")
    if rate is not None:
        if not 0 < rate < 1:
            raise ConfigError(f"--false_alarm_rate: {rate} must be between 0 and 1")
        return calibration_lib.with_rate(calibration, rate)
    if threshold is not None:
        if not math.isfinite(threshold):
            raise ConfigError(f"--threshold: {threshold} must be finite")
        return calibration_lib.with_threshold(calibration, threshold)
    return calibration


def define_threshold(values: flags.FlagValues) -> None:
    """Defines ``--false_alarm_rate`` and ``--threshold``."""
    rate = "Share of good pictures that may be called defective."
    flags.DEFINE_float("false_alarm_rate", None, rate, flag_values=values)
    flags.DEFINE_float("threshold", None, "Score that is defective.", flag_values=values)


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may follow the inputs
    flags.DEFINE_string("output", None, "Folder to write to.", flag_values=values)
    flags.DEFINE_string("maps", "50", "How many of the worst get maps, or all.", flag_values=values)
    kinds = ["npy", "tiff"]
    flags.DEFINE_enum("raw_maps", None, kinds, "Also write the maps' values.", flag_values=values)
    flags.DEFINE_bool("watch", False, "Wait for new files in the folders.", flag_values=values)
    flags.DEFINE_integer("batch_size", None, "Pictures scored at once.", flag_values=values)
    define_threshold(values)
    own_flags.define_custom_code(values)
    own_flags.define_distributed(values)
    return values


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--maps: {text!r} is not a whole number or all")
    return int(text)


def _check_inputs(listed: Inputs, *, watch: bool) -> None:
    if watch and not listed.folders:
        raise ConfigError("--watch: needs a folder among the inputs")
    if listed.passed_over:
        warn(f"{listed.passed_over} file(s) in the folders are no pictures and are passed over")
    if not listed.files and not watch:
        raise DataError("predict: the inputs hold no picture; give others")


def _decide(
    detector: Detector, rate: float | None, threshold: float | None, workdir: Path
) -> Detector:
    if detector.calibration is None:
        advice = f"daad-jax calibrate {workdir} GOOD_PICTURES makes one"
        if rate is not None or threshold is not None:
            raise ConfigError(f"--false_alarm_rate and --threshold: need a calibration; {advice}")
        warn(f"{workdir}: no good pictures were held out, so there is no threshold; {advice}")
        return detector
    chosen = choose_threshold(detector.calibration, rate, threshold)
    print(f"threshold of {chosen.decision}: {chosen.threshold:.5g}, from {chosen.describe()}")
    return detector.with_calibration(chosen)


def _predict(this: _Run, predictions: Predictions, listed: Inputs, *, watch: bool) -> None:
    if predictions.decided_anew:
        print(f"{CSV_FILE}: its rows had another threshold and are decided again")
        for file in (this.output / report.MAPS_FOLDER).glob("*"):
            file.unlink()
    left = [path for path in listed.files if row_path(path) not in predictions.done]
    if known := len(listed.files) - len(left):
        print(f"{known} of {len(listed.files)} pictures have their row already")
    own = [path for path in left if processes.is_own(path)]
    _score(this, predictions, own, None if watch else len(own))
    processes.meet("scored")
    if not processes.is_first():
        return
    predictions.take_over()
    _show(this, predictions)
    if not watch:
        return
    watched = Watch(listed.folders, listed.files, without=this.output)
    print("watching for new pictures; Ctrl-C ends it", flush=True)
    while True:
        with signals.interruptible():
            time.sleep(_POLL_SECONDS)
        new = [path for path in watched.poll() if row_path(path) not in predictions.done]
        if new:
            _score(this, predictions, new, len(new))
            _show(this, predictions)


def _score(this: _Run, predictions: Predictions, paths: Iterable[str], total: int | None) -> None:
    counter = Counter(total)
    try:
        for decoded in decode_files(this.detector, paths):
            predictions.append(decoded)
            counter.add(len(decoded.paths))
    finally:
        counter.close()


def _show(this: _Run, predictions: Predictions) -> None:
    """Writes the maps of the worst pictures and the page, and prints a line."""
    most = None if this.maps is None else max(this.maps, report.MOST_ROWS)
    summary, calibration = predictions.summarize(most), this.detector.calibration
    mapped = [row.path for row in summary.worst[: this.maps]]
    report.write_maps(this.output, this.detector, mapped, this.raw_maps)
    page = report.write_page(this.output, this.title, calibration, summary)
    told = "" if calibration is None else f"{summary.defective} defective, "
    told += f"{summary.broken} that cannot be used"
    print(f"{summary.pictures} pictures: {told} -> {display_name(page)}", flush=True)
