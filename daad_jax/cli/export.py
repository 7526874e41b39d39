"""``export``: writes a trained run into one file that runs without this package."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from daad_jax.cli import flags as own_flags
from daad_jax.config import DataConfig
from daad_jax.data import display_name, load_dataset
from daad_jax.data.decode import decode_image, read_bytes
from daad_jax.data.inputs import list_inputs
from daad_jax.errors import CheckpointError, ConfigError, DataError
from daad_jax.exported import ExportError
from daad_jax.runtime.files import user_path
from daad_jax.scoring.detector import Detector, load
from daad_jax.scoring.export import export_detector
from daad_jax.scoring.onnx import export_onnx

_FILE = "model.daad"  # in the workdir
_PICTURES, _REFERENCE_BYTES = 8, 8 << 20  # of the reference, at most


def run(argv: Sequence[str]) -> None:
    """Writes the last checkpoint of a run with its threshold into one file, and loads it again.

    A file whose name ends in ``.onnx`` is an ONNX model.

    `argv` is "export", the workdir, pictures for the reference if any, and flags. Without pictures
    the reference is some of the run's own test pictures. Raises UserError if the flags, the workdir
    or a picture cannot be used.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may follow the pictures
    flags.DEFINE_string("output", None, "File to write.", short_name="o", flag_values=values)
    own_flags.define_custom_code(values)
    words = own_flags.parse_flags(values, argv, positional=True)
    if not words:
        raise ConfigError("export: give a workdir, export WORKDIR -o FILE")
    workdir = user_path(words[0])
    detector = load(workdir, allow_custom_code=values.allow_custom_code)
    output = user_path(values.output or workdir / _FILE)
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"--output: {output} is not a file in a folder that exists")
    data = dataclasses.replace(detector.config.data, brightness="kept")
    reference = _decode(words[1:], data, workdir) if words[1:] else _draw(data, workdir)
    if output.suffix == ".onnx":
        difference = export_onnx(output, detector, reference)
    else:
        about = _training(detector, workdir)
        try:
            difference = export_detector(output, detector, reference, about)
        except ExportError as error:
            raise CheckpointError(f"{output}: is not written: {error}") from error
    size = output.stat().st_size / 2**20
    print(f"{display_name(output)}: {size:.1f} MiB, {len(reference)} reference pictures")
    print(f"their scores from the file differ by {difference:.2g} of the score's spread")


def _decode(inputs: Sequence[str], data: DataConfig, workdir: Path) -> np.ndarray:
    files = list_inputs(inputs, sys.stdin, without=workdir).files[: _most(data)]
    if not files:
        raise DataError("export: the inputs hold no picture; give others")
    return np.stack([decode_image(read_bytes(user_path(one)), one, data) for one in files])


def _draw(data: DataConfig, workdir: Path) -> np.ndarray:
    """Some test pictures of the run, good and defective ones; training pictures without these."""
    try:
        dataset = load_dataset(data, data.category, workdir / "cache")
    except DataError as error:
        raise DataError(
            f"{error}; or give some pictures for the reference, export WORKDIR PICTURE ..."
        ) from error
    part = dataset.test if len(dataset.test) else dataset.train
    labels = np.asarray(part.labels)
    found = [np.flatnonzero(labels == kind) for kind in (0, 1)]
    each = -(-_most(data) // sum(len(one) > 0 for one in found))
    chosen = np.concatenate([one[:: max(len(one) // each, 1)][:each] for one in found])
    return np.asarray(part.inputs[np.sort(chosen[: _most(data)])])


def _most(data: DataConfig) -> int:
    """The number of reference pictures."""
    height, width = data.picture_size
    return min(_PICTURES, max(1, _REFERENCE_BYTES // (height * width * (data.channels + 1))))


def _training(detector: Detector, workdir: Path) -> dict[str, Any]:
    """What the file says of the training. It names no folder of this machine."""
    config = detector.config
    about = {
        "setting": config.setting,
        "category": display_name(Path(config.data.category or config.data.root).name),
        "addressing": config.memory.addressing,
        "corruption": config.train.corruption,
        "steps": detector.step,
        "seed": config.seed,
        "weights": detector.fingerprint,
    }
    try:
        about["pictures"] = json.loads((workdir / "images.json").read_text())["count"]
    except (OSError, ValueError, TypeError, KeyError):
        about["pictures"] = None
    return about
