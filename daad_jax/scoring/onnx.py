"""Writes a detector as an ONNX model, with jax2onnx, and checks it in ONNX Runtime."""

import importlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from daad_jax.data.tiles import tiling
from daad_jax.errors import ConfigError
from daad_jax.exported import MAX_DIFFERENCE
from daad_jax.runtime.files import replacing
from daad_jax.scoring.detector import Detector
from daad_jax.scoring.export import Parts, Results, preparation_metadata, split

_IMAGES, _SCORED, _METADATA = "images", "scored/", "daad_jax"


def export_onnx(path: Path, detector: Detector, reference: np.ndarray) -> float:
    """Writes a detector as an ONNX model with a free batch dimension, atomically.

    Its input ``images`` and its outputs are those of `daad_jax.scoring.export.split`. The networks
    and what follows them are two graphs, joined, because jax2onnx gives all numbers of a graph one
    precision.

    `reference` are pictures as in `daad_jax.scoring.export.export_detector`. Returns the largest
    difference of their decision scores in ONNX Runtime, divided by their spread on good pictures.
    Raises ConfigError if jax2onnx is missing, cannot write this model, or its scores differ.
    """
    data, calibration = detector.config.data, detector.calibration
    if tiling(data) or data.has_validity or data.brightness == "equal":
        raise ConfigError(
            "export: tiles, padding, an ignored region and equal brightness cannot be written as "
            "ONNX; write a file that does not end in .onnx"
        )
    onnx, jax2onnx, runtime = _libraries()
    parts = split(detector)
    with jax.enable_x64(True):
        scored = jax.jit(parts.networks)(parts.parameters, reference)
        wanted = parts.verdict(scored, jax.numpy.asarray(reference))
    about = preparation_metadata(data) | {"threshold": detector.threshold}
    try:
        model = _convert(onnx, jax2onnx, parts, scored, wanted, reference.shape[1:])
        onnx.helper.set_model_props(model, {_METADATA: json.dumps(about)})
        content = model.SerializeToString()
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (after,) = session.run(["decision_score"], {_IMAGES: reference})
    except Exception as error:  # jax2onnx raises many types for operations that it does not know
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"export: jax2onnx cannot write this model ({type(error).__name__}: {reason}); write a "
            "file that does not end in .onnx"
        ) from error
    before = np.asarray(wanted["decision_score"])
    good = before if calibration is None else np.array(calibration.good_scores)
    difference = float(np.max(np.abs(after - before)) / (np.std(good) or 1.0))
    if not difference <= MAX_DIFFERENCE:
        raise ConfigError(
            f"export: scores in ONNX Runtime differ by {difference:.2g} of their spread; write a "
            "file that does not end in .onnx"
        )
    with replacing(path) as partial:
        partial.write_bytes(content)
    return difference


def _convert(
    onnx: Any,
    jax2onnx: Any,
    parts: Parts,
    scored: dict[str, jax.Array],
    wanted: Results,
    shape: tuple[int, ...],
) -> Any:
    """The ONNX model of a detector; `scored` and `wanted` are examples of what its parts return."""
    (batch,) = jax.export.symbolic_shape("b")
    names = [*(_SCORED + name for name in scored), _SCORED + _IMAGES]
    shapes = [(batch, *one.shape[1:]) for one in scored.values()] + [(batch, *shape)]

    def networks(images: jax.Array) -> list[jax.Array]:
        found = parts.networks(parts.parameters, images)  # type: ignore[arg-type]
        return [*(found[name] for name in scored), images.astype(np.float32)]

    def verdict(*arrays: jax.Array) -> list[jax.Array]:
        found = parts.verdict(dict(zip(scored, arrays, strict=False)), arrays[-1])
        return [one if one.ndim == 1 else one + 0.0 for one in found.values()]  # no input is output

    first = jax2onnx.to_onnx(
        networks,
        [jax.ShapeDtypeStruct(shapes[-1], np.uint8)],
        input_names=[_IMAGES],
        output_names=names,
    )
    with jax.enable_x64(True):
        second = jax2onnx.to_onnx(
            verdict,
            [jax.ShapeDtypeStruct(one, np.float64) for one in shapes],
            enable_double_precision=True,
            input_names=names,
            output_names=list(wanted),
        )
    return _joined(onnx, first, second, names)


def _libraries() -> list[Any]:
    try:
        return [importlib.import_module(name) for name in ("onnx", "jax2onnx", "onnxruntime")]
    except ImportError as error:
        raise ConfigError(
            f"export: ONNX needs {error.name}; pip install 'daad_jax[onnx]'"
        ) from error


def _joined(onnx: Any, first: Any, second: Any, names: list[str]) -> Any:
    """The second graph behind the first, with what passes between them cast to float64."""
    double = onnx.TensorProto.DOUBLE
    for name in names:
        cast = onnx.helper.make_node("Cast", [name], [f"{name}/double"], to=double)
        first.graph.node.append(cast)
    outputs = {one.name: one for one in first.graph.output}
    for name in names:
        outputs[name].name = f"{name}/double"
        outputs[name].type.tensor_type.elem_type = double
    second = onnx.compose.add_prefix(second, "verdict/")
    pairs = [(f"{name}/double", f"verdict/{name}") for name in names]
    joined = onnx.compose.merge_models(first, second, io_map=pairs)
    for output in joined.graph.output:
        old, output.name = output.name, output.name.removeprefix("verdict/")
        for node in joined.graph.node:
            node.output[:] = [output.name if one == old else one for one in node.output]
            node.input[:] = [output.name if one == old else one for one in node.input]
    return joined
