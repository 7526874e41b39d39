"""Scoring images with trained networks: R, L, anomaly maps and reconstructions in batches."""

import functools
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from daad_jax import addressing, files, interruption, partition, scores, sharding
from daad_jax.checkpoint import Checkpoints, load_config
from daad_jax.compiling import compiler_options
from daad_jax.config import Config, ScoreConfig
from daad_jax.data.images import decode_image, read_bytes, resize_array
from daad_jax.errors import CheckpointError, NonFiniteError
from daad_jax.generator import MemorySpec
from daad_jax.manifest import write_json
from daad_jax.memory import MemoryRead, item_usage
from daad_jax.scores import Scale
from daad_jax.state import Networks, TrainState, build_networks, build_optimizer, init_state
from daad_jax.step import normalize_images

CALIBRATION_FILE = "calibration.json"
REFERENCE_FILE = "reference.npz"


class RawScores(NamedTuple):
    """What the networks say of images, before any scaling.

    Attributes:
        reconstruction_score: R(x), float64 ``(n,)``.
        alignment_score: L(x), float64 ``(n,)``, or None without a discriminator.
        anomaly_map: float32 ``(n, H, W)``.
        feature_map: float32 ``(n, h, w)``, or None without a discriminator; see
            `daad_jax.scores.feature_map`.
        reconstruction: float32 ``(n, H, W, C)`` in [-1, 1].
    """

    reconstruction_score: np.ndarray
    alignment_score: np.ndarray | None
    anomaly_map: np.ndarray
    feature_map: np.ndarray | None
    reconstruction: np.ndarray


class Reference(NamedTuple):
    """The mean maps of normal training images, which the relative scores divide by.

    Attributes:
        step: the checkpoint's step.
        anomaly_map: float32 ``(H, W)``.
        feature_map: float32 ``(h, w)``, or None without a discriminator.
    """

    step: int
    anomaly_map: np.ndarray
    feature_map: np.ndarray | None


class Calibration(NamedTuple):
    """The `calibrated` protocol: scales and a threshold from held-out normal images.

    Attributes:
        step: the checkpoint's step.
        reconstruction: scale of R.
        alignment: scale of L, or None.
        threshold: images with the verdict score, `score.verdict`, at or above it are called
            defective.
    """

    step: int
    reconstruction: Scale
    alignment: Scale | None
    threshold: float


class Result(NamedTuple):
    """What `Detector.score` returns for n images.

    Attributes:
        anomaly_score: A(x) under the `calibrated` protocol, float64 ``(n,)``; about 0 to 1 for
            normal images. None when the run held out no images to calibrate on.
        reconstruction_score: R(x), unscaled, float64 ``(n,)``.
        alignment_score: L(x), unscaled, float64 ``(n,)``, or None without a discriminator.
        defective: bool ``(n,)``, whether the verdict score, A unless `score.verdict` names another,
            is at or above the threshold; None when there is no threshold.
        localized_scores: by name, float64 ``(n,)`` each, unscaled; see `localized_scores`.
        anomaly_map: float32 ``(n, H, W)``, smoothed squared error, at the model's image size.
        reconstruction: float32 ``(n, H, W, C)`` in [-1, 1].
    """

    anomaly_score: np.ndarray | None
    reconstruction_score: np.ndarray
    alignment_score: np.ndarray | None
    defective: np.ndarray | None
    localized_scores: dict[str, np.ndarray]
    anomaly_map: np.ndarray
    reconstruction: np.ndarray


def score_images(
    networks: Networks, state: TrainState, images: jax.Array, blur: jax.Array
) -> dict[str, jax.Array]:
    """Scores one batch; pure, to be jitted or vmapped.

    Running statistics are used throughout, so an image's scores do not depend on its batch mates.

    Args:
        networks: the modules.
        state: their arrays.
        images: ``(B, H, W, C)`` in [-1, 1].
        blur: ``(H, H)`` from `daad_jax.scores.blur_matrix`.

    Returns:
        ``reconstruction_score`` (B,), ``anomaly_map`` (B, H, W), ``reconstruction`` (B, H, W, C)
        and, with a discriminator, ``alignment_score`` (B,) and ``feature_map`` (B, h, w).
    """
    generator, discriminator = state.evaluated
    generated = networks.generator.apply(generator, images, train=False)
    assert isinstance(generated, dict)
    reconstruction = generated["reconstruction"]
    result = {
        "reconstruction_score": scores.reconstruction_score(images, reconstruction),
        "anomaly_map": scores.anomaly_map(images, reconstruction, blur),
        "reconstruction": reconstruction,
    }
    if networks.discriminator is not None:
        judge: Callable[[jax.Array], Any] = functools.partial(
            networks.discriminator.apply, discriminator, train=False
        )
        (_, features), (_, reconstruction_features) = judge(images), judge(reconstruction)
        result["alignment_score"] = scores.alignment_score(features, reconstruction_features)
        result["feature_map"] = scores.feature_map(features, reconstruction_features)
    return result


def score_in_order(
    networks: Networks, state: TrainState, images: jax.Array, blur: jax.Array, most_error: float
) -> tuple[dict[str, jax.Array], TrainState]:
    """`score_images` of one image after the other, each of which may update the memories.

    The update is that of training, by the image's own queries, once it is scored and if its
    `weighted_error` is at most `most_error` (Park et al., CVPR 2020).

    Returns:
        The scores of the batch, and the state after it.
    """

    def one(state: TrainState, image: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        scored = score_images(networks, state, image[None], blur)
        variables = state.evaluated[0]
        _, updated = networks.generator.apply(
            variables, image[None], train=False, update=True, mutable=["memory"]
        )
        error = weighted_error(image, scored["reconstruction"][0])
        memory = jax.tree.map(
            lambda new, old: jnp.where(error <= most_error, new, old),
            updated["memory"],
            variables["memory"],
        )
        return state.with_memory(memory), {name: value[0] for name, value in scored.items()}

    state, result = jax.lax.scan(one, state, images)
    return result, state


def weighted_error(image: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """The mean distance of pixels, large ones counting more (Park et al., CVPR 2020).

    ``sum W d`` with d a pixel's distance over its channels and ``W = (1 - exp(-d)) / sum (...)``;
    images ``(H, W, C)`` in [-1, 1].
    """
    distances = jnp.sqrt(jnp.sum(jnp.square(image - reconstruction), axis=-1))
    weights = 1.0 - jnp.exp(-distances)
    return jnp.sum(weights * distances) / jnp.maximum(jnp.sum(weights), 1e-12)


class MemoryUse(NamedTuple):
    """What reads did with one scale's memory.

    Attributes:
        reads: ``(N,)`` and
        weight: ``(N,)``, as in `daad_jax.memory.ItemUsage`.
        blocks: how many reads there were.
        active_items: sum over them of `daad_jax.memory.ReadSummary.active_items`.
        entropy: likewise.
        dead_reads: likewise, of `dead`.
    """

    reads: jax.Array
    weight: jax.Array
    blocks: jax.Array
    active_items: jax.Array
    entropy: jax.Array
    dead_reads: jax.Array


def memory_usage(
    networks: Networks, state: TrainState, images: jax.Array, counted: jax.Array
) -> dict[str, MemoryUse]:
    """How much one batch reads each memory item; pure, to be jitted.

    Args:
        networks: the modules.
        state: their arrays.
        images: ``(B, H, W, C)`` in [-1, 1].
        counted: ``(B,)``, 1.0 for an image that counts and 0.0 for one that pads the batch.

    Returns:
        For each scale with a memory, a `MemoryUse`.
    """
    generator, _ = state.evaluated
    generated = networks.generator.apply(generator, images, train=False, return_weights=True)
    assert isinstance(generated, dict)
    return {
        scale: _use(memory_spec(networks, scale), memory_read, counted)
        for scale, memory_read in generated["reads"].items()
    }


def memory_spec(networks: Networks, scale: str) -> MemorySpec:
    """The memory of a scale that has one, by its name."""
    spec = networks.generator.memories[int(scale.removeprefix("scale_")) - 1]
    assert spec is not None
    return spec


def _use(spec: MemorySpec, read: MemoryRead, counted: jax.Array) -> MemoryUse:
    assert read.weights is not None
    grouped = partition.group(read.weights, spec.rates, spec.groups)
    usage = jax.vmap(item_usage, (0, None))(grouped, counted)

    def total(values: jax.Array) -> jax.Array:
        return jnp.sum(values * counted[:, None])

    summary = read.summary
    return MemoryUse(
        usage.reads.reshape(-1),
        usage.weight.reshape(-1),
        total(jnp.ones_like(summary.dead)),
        total(summary.active_items),
        total(summary.entropy),
        total(summary.dead),
    )


class Scorer:
    """Scores any number of uint8 images in padded batches of one compiled shape."""

    def __init__(self, config: Config, state: TrainState, mesh: jax.sharding.Mesh) -> None:
        """Binds a trained state; nothing is compiled before the first images."""
        self.networks = build_networks(config)
        self.state = state
        self._mesh = mesh
        self.batch_size = -(-config.score.batch_size // mesh.size) * mesh.size
        blur = scores.blur_matrix(config.data.image_size, config.score.map_sigma)
        keyed = _HashableNetworks(config, self.networks)
        self._score, self._usage = _jitted_score(keyed, mesh), _jitted_usage(keyed, mesh)
        self._in_order: Any = None
        if config.memory.test_update > 0:
            self._in_order = _jitted_in_order(keyed, mesh, config.memory.test_update)
        self._blur = jnp.asarray(blur)

    def __call__(self, images: np.ndarray) -> RawScores:
        """Scores uint8 ``(n, H, W, C)`` of the model's size, n at least 1.

        With `memory.test_update` the images come in this order, from the trained items on.

        Raises:
            NonFiniteError: naming the first image with a score or map that is not finite.
        """
        parts = list(self._batches(images))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        _check_finite(joined)
        alignment = joined.get("alignment_score")
        return RawScores(
            joined["reconstruction_score"].astype(np.float64),
            None if alignment is None else alignment.astype(np.float64),
            joined["anomaly_map"],
            joined.get("feature_map"),
            joined["reconstruction"],
        )

    def usage(self, images: np.ndarray) -> dict[str, MemoryUse]:
        """How much uint8 ``(n, H, W, C)`` images, n at least 1, read each memory item.

        Only sums over a batch are ever kept, never the weights of all images.

        Returns:
            For each scale with a memory, a `MemoryUse` of float64.
        """
        total: dict[str, MemoryUse] = {}
        for count, placed in self.placed(images):
            counted = (np.arange(self.batch_size) < count).astype(np.float32)
            for scale, part in jax.device_get(self._usage(self.state, placed, counted)).items():
                sums = jax.tree.map(np.float64, part)
                old = total.get(scale)
                total[scale] = sums if old is None else jax.tree.map(np.add, old, sums)
        return total

    def _batches(self, images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        state = self.state
        for count, placed in self.placed(images):
            if self._in_order is None:
                result = jax.device_get(self._score(state, placed, self._blur))
            else:
                scored, state = self._in_order(state, placed, self._blur)
                result = jax.device_get(scored)
            yield {name: values[:count] for name, values in result.items()}

    def placed(self, images: np.ndarray) -> Iterator[tuple[int, jax.Array]]:
        """Batches of one shape on the mesh, each with how many of its images are real."""
        for start in range(0, len(images), self.batch_size):
            interruption.check()
            batch = np.asarray(images[start : start + self.batch_size])
            count = len(batch)
            padded = np.concatenate([batch, np.repeat(batch[:1], self.batch_size - count, axis=0)])
            yield count, sharding.place_batch(padded.shape, padded.__getitem__, self._mesh)


def _check_finite(results: dict[str, np.ndarray]) -> None:
    for name in ("reconstruction", *results):
        bad = np.flatnonzero(
            ~np.isfinite(results[name]).reshape(len(results[name]), -1).all(axis=1)
        )
        if len(bad):
            raise NonFiniteError(
                f"image {bad[0] + 1} of {len(results[name])}: its {name} is not finite; these "
                "weights have diverged, train anew with a lower train.learning_rate"
            )


class Detector:
    """A trained run, ready to score images; see `load`."""

    def __init__(
        self,
        config: Config,
        scorer: Scorer,
        calibration: Calibration | None,
        reference: Reference | None,
    ) -> None:
        """Use `load` instead."""
        self.config = config
        self._scorer = scorer
        self._calibration = calibration
        self._reference = reference

    @property
    def threshold(self) -> float | None:
        """The verdict score at or above it means defective; None when no images were held out."""
        return None if self._calibration is None else self._calibration.threshold

    def score(self, images: Any) -> Result:
        """Scores images.

        Args:
            images: a sequence of image files' paths, or of uint8 arrays ``(H, W)`` or
                ``(H, W, C)`` in 0 to 255 and of any sizes, C 1 or 3; or one array
                ``(n, H, W, C)``. They are resized and converted as the training images were.

        Returns:
            A `Result` for the n images.

        Raises:
            ValueError: for another dtype or shape, a single image, or no image at all.
            DataError: if a file cannot be read or is no image; the message names it.
            NonFiniteError: if a score is not finite, since the training has diverged.
        """
        if isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise ValueError("one image? put it into a list")
        prepared = [self._prepare(image) for image in images]
        if not prepared:
            raise ValueError("no images to score")
        raw = self._scorer(np.stack(prepared))
        anomaly_score = defective = None
        settings = self.config.score
        if self._calibration is not None:
            anomaly_score = fuse(raw, settings.gamma, self._calibration)
            verdict = verdict_score(raw, settings, self._calibration, self._reference)
            defective = verdict >= self._calibration.threshold
        return Result(
            anomaly_score,
            raw.reconstruction_score,
            raw.alignment_score,
            defective,
            localized_scores(raw, settings.map_quantile, self._reference),
            raw.anomaly_map,
            raw.reconstruction,
        )

    def _prepare(self, image: Any) -> np.ndarray:
        data = self.config.data
        form: dict[str, Any] = {
            "size": data.image_size,
            "channels": data.channels,
            "resize": data.resize,
            "brightness": data.brightness,
        }
        if isinstance(image, (str, Path)):
            return decode_image(read_bytes(Path(image)), str(image), **form)
        return resize_array(_check_image(image), **form)


def load(workdir: str | Path, *, allow_custom_code: bool = False) -> Detector:
    """Loads the last checkpoint of a run.

    Args:
        workdir: of one category: the folder with ``config.json``.
        allow_custom_code: whether an addressing rule that the config names as ``module:function``
            is imported; only for workdirs that one trusts.

    Returns:
        A `Detector`, whose ``score(images)`` gives scores and maps.

    Raises:
        CheckpointError: if there is no sound checkpoint there.
        ConfigError: if the rule is custom code, and that is not allowed or cannot be imported.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    addressing.permit(config.memory.addressing, allowed=allow_custom_code)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    state = restore_state(workdir, config, mesh)
    step = int(state.step)
    calibration, reference = load_calibration(workdir, step), load_reference(workdir, step)
    return Detector(config, Scorer(config, state, mesh), calibration, reference)


def restore_state(workdir: Path, config: Config, mesh: jax.sharding.Mesh) -> TrainState:
    """Restores the last checkpoint of a workdir onto a mesh.

    Raises:
        CheckpointError: if there is none, or it cannot be read.
    """
    networks, optimizer = build_networks(config), build_optimizer(config)
    size, channels = config.data.image_size, config.data.channels
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    shapes = jax.eval_shape(
        functools.partial(init_state, networks, optimizer, average=config.train.average_decay > 0),
        jax.eval_shape(jax.random.key, 0),
        images,
    )
    whole = sharding.replicated(mesh)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes
    )
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(shapes)


def calibrate(
    raw: RawScores, step: int, settings: ScoreConfig, reference: Reference
) -> Calibration:
    """Fits scales and a threshold to the scores of held-out normal images.

    Args:
        raw: their scores.
        step: the checkpoint's.
        settings: which score gives the verdict, and which quantile of it is the threshold.
        reference: what relative scores divide by.
    """
    alignment = None if raw.alignment_score is None else scores.fit_scale(raw.alignment_score)
    scaled = Calibration(step, scores.fit_scale(raw.reconstruction_score), alignment, 0.0)
    values = verdict_score(raw, settings, scaled, reference)
    threshold = float(np.quantile(values, settings.threshold_quantile))
    return scaled._replace(threshold=threshold)


def verdict_score(
    raw: RawScores, settings: ScoreConfig, calibration: Calibration, reference: Reference | None
) -> np.ndarray:
    """The score that is held against the threshold, ``(n,)``: the calibrated A or a localised one.

    Raises:
        CheckpointError: if it is relative and there is no reference.
    """
    if settings.verdict == "A":
        return fuse(raw, settings.gamma, calibration)
    localized = localized_scores(raw, settings.map_quantile, reference)
    if settings.verdict not in localized:
        raise CheckpointError(
            f"{REFERENCE_FILE}: is missing, and {settings.verdict} needs it; run eval.py to write "
            "it anew"
        )
    return localized[settings.verdict]


def fuse(raw: RawScores, gamma: float, calibration: Calibration) -> np.ndarray:
    """A(x) ``(n,)`` of raw scores under a calibration's scales."""
    alignment = None
    if raw.alignment_score is not None and calibration.alignment is not None:
        alignment = calibration.alignment(raw.alignment_score)
    reconstruction = calibration.reconstruction(raw.reconstruction_score)
    return scores.anomaly_score(reconstruction, alignment, gamma)


def localized_scores(
    raw: RawScores, quantile: float, reference: Reference | None
) -> dict[str, np.ndarray]:
    """The localised scores by name, extensions of the paper's: the worst place counts.

    Args:
        raw: the images' scores.
        quantile: of R_quantile.
        reference: what the relative scores divide by; without it there are none.

    Returns:
        float64 ``(n,)`` each, unscaled: ``R_max`` and ``R_quantile`` of the anomaly map; with a
        reference, of the `daad_jax.scores.relative_map`, ``R_max_relative``,
        ``R_quantile_relative`` and ``R_contrast_relative``; with a discriminator ``L_max`` and,
        with both, ``L_max_relative`` of the feature map.
    """
    result = {
        "R_max": scores.map_maximum(raw.anomaly_map),
        "R_quantile": scores.map_quantile(raw.anomaly_map, quantile),
    }
    if raw.feature_map is not None:
        result["L_max"] = scores.map_maximum(raw.feature_map)
    if reference is not None:
        relative = scores.relative_map(raw.anomaly_map, reference.anomaly_map)
        result["R_max_relative"] = scores.map_maximum(relative)
        result["R_quantile_relative"] = scores.map_quantile(relative, quantile)
        result["R_contrast_relative"] = scores.map_contrast(relative)
        if raw.feature_map is not None and reference.feature_map is not None:
            relative = scores.relative_map(raw.feature_map, reference.feature_map)
            result["L_max_relative"] = scores.map_maximum(relative)
    return result


def fit_reference(raw: RawScores, step: int) -> Reference:
    """The mean maps of some normal training images.

    Args:
        raw: their scores.
        step: the checkpoint's.
    """
    features = None if raw.feature_map is None else raw.feature_map.mean(axis=0)
    return Reference(step, raw.anomaly_map.mean(axis=0), features)


def save_reference(workdir: Path, reference: Reference) -> None:
    """Writes ``reference.npz``."""
    values = {name: value for name, value in reference._asdict().items() if value is not None}
    with files.replacing(workdir / REFERENCE_FILE) as partial, partial.open("wb") as file:
        np.savez(file, **values)


def load_reference(workdir: Path, step: int) -> Reference | None:
    """Reads ``reference.npz``; None when the run was not evaluated yet.

    Raises:
        CheckpointError: if it is damaged, or belongs to another step than the checkpoint.
    """
    path = workdir / REFERENCE_FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as values:
            features = values.get("feature_map")
            reference = Reference(int(values["step"]), values["anomaly_map"], features)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read; run eval.py to write it anew") from error
    _check_step(path, reference.step, step)
    return reference


def save_calibration(workdir: Path, calibration: Calibration) -> None:
    """Writes ``calibration.json``."""
    values = {**calibration._asdict(), "reconstruction": calibration.reconstruction._asdict()}
    if calibration.alignment is not None:
        values["alignment"] = calibration.alignment._asdict()
    write_json(workdir / CALIBRATION_FILE, values)


def load_calibration(workdir: Path, step: int) -> Calibration | None:
    """Reads ``calibration.json``; None when the run was not calibrated.

    Raises:
        CheckpointError: if it is damaged, or belongs to another step than the checkpoint.
    """
    path = workdir / CALIBRATION_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        alignment = values["alignment"]
        calibration = Calibration(
            int(values["step"]),
            Scale(**values["reconstruction"]),
            None if alignment is None else Scale(**alignment),
            float(values["threshold"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read; run eval.py to write it anew") from error
    _check_step(path, calibration.step, step)
    return calibration


def _check_step(path: Path, own: int, step: int) -> None:
    if own != step:
        raise CheckpointError(
            f"{path}: belongs to step {own}, the checkpoint to step {step}; run eval.py to write "
            "it anew"
        )


class _HashableNetworks:
    """Networks with the text that decides their equality, for the cache of compiled functions."""

    def __init__(self, config: Config, networks: Networks) -> None:
        self.networks = networks
        data = config.data
        self._text = repr(
            (config.model, config.memory, config.has_discriminator, config.discriminator)
        ) + repr((data.image_size, data.channels))

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _HashableNetworks) and self._text == other._text


@functools.lru_cache(maxsize=4)
def _jitted_score(
    keyed: _HashableNetworks, mesh: jax.sharding.Mesh
) -> Callable[[TrainState, jax.Array, jax.Array], dict[str, jax.Array]]:
    whole, split = sharding.replicated(mesh), sharding.batched(mesh)

    def score(state: TrainState, images: jax.Array, blur: jax.Array) -> dict[str, jax.Array]:
        return score_images(keyed.networks, state, normalize_images(images), blur)

    return jax.jit(
        score,
        in_shardings=(whole, split, whole),
        out_shardings=split,
        compiler_options=compiler_options(mesh),
    )


@functools.lru_cache(maxsize=4)
def _jitted_in_order(keyed: _HashableNetworks, mesh: jax.sharding.Mesh, most_error: float) -> Any:
    whole, split = sharding.replicated(mesh), sharding.batched(mesh)

    def score(
        state: TrainState, images: jax.Array, blur: jax.Array
    ) -> tuple[dict[str, jax.Array], TrainState]:
        return score_in_order(keyed.networks, state, normalize_images(images), blur, most_error)

    return jax.jit(
        score,
        in_shardings=(whole, split, whole),
        out_shardings=whole,
        compiler_options=compiler_options(mesh),
    )


@functools.lru_cache(maxsize=4)
def _jitted_usage(
    keyed: _HashableNetworks, mesh: jax.sharding.Mesh
) -> Callable[[TrainState, jax.Array, np.ndarray], dict[str, MemoryUse]]:
    whole, split = sharding.replicated(mesh), sharding.batched(mesh)

    def usage(state: TrainState, images: jax.Array, counted: jax.Array) -> dict[str, MemoryUse]:
        return memory_usage(keyed.networks, state, normalize_images(images), counted)

    return jax.jit(
        usage,
        in_shardings=(whole, split, split),
        out_shardings=whole,
        compiler_options=compiler_options(mesh),
    )


def _check_image(image: Any) -> np.ndarray:
    array = np.asarray(image)
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
    if array.dtype != np.uint8 or not shaped or array.size == 0:
        raise ValueError(
            f"an image is {array.dtype} {array.shape}; expected uint8 (H, W), (H, W, 1) or "
            "(H, W, 3) in 0 to 255"
        )
    return array
