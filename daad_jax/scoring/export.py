"""Writes a detector into one file that `daad_jax.exported` runs without this package."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
from flax import traverse_util

import daad_jax
from daad_jax import exported
from daad_jax.config import DataConfig
from daad_jax.data.dataset import split_valid
from daad_jax.data.decode import equalize_brightness, ignore_mask
from daad_jax.data.frame import input_shape
from daad_jax.data.tiles import tiling
from daad_jax.errors import NonFiniteError
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import Networks
from daad_jax.runtime import sharding
from daad_jax.runtime.compiler import CPU_OPTIONS, compiler_options
from daad_jax.runtime.files import replacing
from daad_jax.scoring.detector import Detector
from daad_jax.scoring.scorer import (
    batch_sizes,
    blended,
    map_blur,
    raw_scores,
    score_images,
    score_options,
)

PLATFORMS = ("cpu", "cuda", "tpu")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes


Results = dict[str, jax.Array]
"""Fields of `daad_jax.exported.Result` that a detector knows, by name."""


class Parts(NamedTuple):
    """A detector in two pure functions, of float32 and of float64.

    Attributes:
        parameters: the weights of both networks by the names of their parts in the file.
        networks: maps the parameters and pictures to what `score_images` returns. The pictures are
            those of `Detector.prepare`, uint8 ``(b, H, W, C)``.
        verdict: maps that and the pictures to `Results`; must be traced with 64-bit types enabled.
    """

    parameters: dict[str, np.ndarray]
    networks: Callable[[dict[str, jax.Array], jax.Array], dict[str, jax.Array]]
    verdict: Callable[[dict[str, jax.Array], jax.Array], Results]


def split(detector: Detector) -> Parts:
    """Divides a detector into functions that JAX can trace for any number of pictures.

    Reads of a memory are divided into chunks for the largest of the batches that are compiled.
    """
    config, networks = detector.config, _chunked(detector.scorer.networks, sizes(detector)[-1])
    blur, options, parts = map_blur(config), score_options(config), tiling(config.data)

    def score_batch(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        with jax.enable_x64(False):  # the same operations as in `Scorer`
            normal = normalize_images(images)
            return score_images(networks, variables, normal, blur, *options)

    def score_picture(variables: Any, picture: jax.Array) -> dict[str, jax.Array]:
        """Scores one picture by its tiles, as many of them at once as a batch has."""
        assert parts is not None
        (height, width), most = parts.tile, min(config.score.batch_size, len(parts.corners))
        tiles = jax.numpy.stack(
            [picture[top : top + height, left : left + width] for top, left in parts.corners]
        )
        scored = jax.lax.map(
            lambda one: jax.tree.map(lambda x: x[0], score_batch(variables, one[None])),
            tiles,
            batch_size=most,
        )
        return blended(scored, parts, picture)

    def score(parameters: dict[str, jax.Array], images: jax.Array) -> dict[str, jax.Array]:
        variables = _variables(parameters)
        if parts is None:
            return score_batch(variables, images)
        return jax.lax.map(lambda one: score_picture(variables, one), images)

    def verdict(scored: dict[str, jax.Array], images: jax.Array) -> Results:
        found = detector.judge(raw_scores(scored, images))._asdict()
        return {name: values for name, values in found.items() if values is not None}

    return Parts(_parameters(detector), score, verdict)


def export_detector(
    path: Path, detector: Detector, reference: np.ndarray, about: dict[str, Any]
) -> float:
    """Writes a detector with its threshold to a file, atomically, after loading it once.

    Args:
        path: the file; its folder must exist.
        detector: the detector.
        reference: some pictures whose scores the file's users compare with, uint8 ``(k, H, W, C)``
            as `Detector.prepare` returns them, but with ``data.brightness="kept"``.
        about: what the file says of the training; JSON.

    Returns `ExportedDetector.difference` of the file. Raises NonFiniteError if a score of the
    reference is not finite, and ExportError if the file cannot be used.
    """
    data, parts = detector.config.data, split(detector)

    def function(parameters: dict[str, jax.Array], images: jax.Array) -> Results:
        if data.brightness == "equal":
            images = jax.vmap(_equalized)(images)
        return parts.verdict(parts.networks(parameters, images), images)

    program = _trace(function, parts.parameters, input_shape(data))
    options = compiler_options(sharding.make_mesh(jax.local_devices()[:1]))
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        compiled = jax.jit(function, compiler_options=options)
        found = jax.device_get(compiled(parts.parameters, reference))
    if not np.isfinite(found["decision_score"]).all():
        raise NonFiniteError(
            "export: the score of a reference picture is not finite; the weights have diverged, "
            "train again with a lower train.learning_rate"
        )
    metadata = _metadata(detector, program, found) | {"training": about}
    content = {exported.METADATA: json.dumps(metadata, indent=2).encode() + b"\n"}
    content[exported.PROGRAM] = bytes(program.mlir_module_serialized)
    content[exported.REFERENCE] = _npy(reference)
    if data.ignore and data.ignored_boxes() is None:
        content[exported.IGNORE] = _npy(ignore_mask(data.ignore))
    content |= {f"{name}.npy": _npy(array) for name, array in parts.parameters.items()}
    return _write(path, content)


def sizes(detector: Detector) -> tuple[int, ...]:
    """Sizes of the batches that are compiled. Pictures in tiles are scored one by one anyway."""
    config = detector.config
    return (1,) if tiling(config.data) else batch_sizes(config.score.batch_size, 1)


def _chunked(networks: Networks, largest_batch: int) -> Networks:
    memories = networks.generator.memories
    fixed = tuple(one and one.clone(chunk_images=largest_batch) for one in memories)
    return networks._replace(generator=networks.generator.clone(memories=fixed))


def _equalized(image: jax.Array) -> jax.Array:
    """One picture ``(H, W, C)`` as `daad_jax.data.decode` makes it with equal brightness."""
    colours, channel = split_valid(image)
    if channel is None:
        return equalize_brightness(colours)
    counts = channel > 0
    colours = equalize_brightness(colours, counts)
    mean = colours.mean((0, 1), dtype=np.float64, where=counts, keepdims=True)
    filled = jax.numpy.where(counts, colours, jax.numpy.rint(mean).astype(np.uint8))
    return jax.numpy.concatenate([filled, channel], axis=-1)


def _parameters(detector: Detector) -> dict[str, np.ndarray]:
    """The variables of both networks by the names that their parts of the file have."""
    names = ("generator", "discriminator")
    variables = dict(zip(names, detector.scorer.variables, strict=True))
    flat = traverse_util.flatten_dict({k: dict(v) for k, v in variables.items() if v})
    arrays = jax.device_get(flat)
    return {exported.PARAMETERS + "/".join(path): array for path, array in arrays.items()}


def _variables(parameters: dict[str, jax.Array]) -> tuple[Any, Any]:
    flat = {
        tuple(name.removeprefix(exported.PARAMETERS).split("/")): one
        for name, one in parameters.items()
    }
    nested = traverse_util.unflatten_dict(flat)
    return nested["generator"], nested.get("discriminator")


def _trace(
    function: Callable[..., Any], parameters: dict[str, np.ndarray], shape: tuple[int, ...]
) -> jax.export.Exported:
    """The function as StableHLO for any number of pictures.

    Convolutions and products get full float32 precision on every platform, so that scores are the
    same everywhere.
    """
    (batch,) = jax.export.symbolic_shape("b")
    paths = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, paths)
    jax.config.update(paths, ".*")  # no folder of this machine is written
    try:
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            arrays = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in parameters.items()}
            images = jax.ShapeDtypeStruct((batch, *shape), np.uint8)
            return jax.export.export(jax.jit(function), platforms=PLATFORMS)(arrays, images)
    finally:
        jax.config.update(paths, before)


def _metadata(
    detector: Detector, program: jax.export.Exported, found: dict[str, np.ndarray]
) -> dict[str, Any]:
    config, calibration = detector.config, detector.calibration
    good = found["decision_score"] if calibration is None else np.array(calibration.good_scores)
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    return {
        "format": exported.FORMAT,
        "made_with": f"daad_jax {daad_jax.__version__}, jax {jax.__version__}",
        **preparation_metadata(config.data),
        "decision": config.score.decision,
        "threshold": detector.threshold,
        "pixel_threshold": detector.pixel_threshold,
        "threshold_from": calibration and calibration.describe(),
        "good_pictures": calibration and len(calibration.good_scores),
        "map": config.score.map,
        "spread": float(np.std(good)) or 1.0,
        "batch_sizes": sizes(detector),
        "program": {
            "platforms": program.platforms,
            "calling_convention_version": program.calling_convention_version,
            "uses_global_constants": program.uses_global_constants,
            "kept_arguments": program.module_kept_var_idx,
            "compiler_options": {"cpu": CPU_OPTIONS},
            "outputs": {k: [v.dtype.name, v.shape[1:]] for k, v in outputs.items()},
        },
        "reference": {k: v.tolist() for k, v in found.items() if k != "anomaly_map"},
    }


def preparation_metadata(data: DataConfig) -> dict[str, Any]:
    """What the file says of how pictures are prepared, for `daad_jax.exported.Preparation`."""
    return {
        "image_size": data.picture_size,
        "channels": data.channels,
        "input_shape": input_shape(data),
        "resize": {
            "filter": data.resize,
            "fit": data.fit,
            "ignore": (data.ignored_boxes() or []) if data.ignore else [],
            "value_range": data.value_range,
        },
        "brightness": data.brightness,
    }


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), (1, 0), allow_pickle=False)
    return file.getvalue()


def _write(path: Path, parts: dict[str, bytes]) -> float:
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    with replacing(path) as partial:
        with zipfile.ZipFile(partial, "w") as file:
            for name, content in {**parts, exported.SUMS: lines.encode()}.items():
                file.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        return exported.load_exported(partial).difference
