"""The config: typed dataclasses, the six settings, one `validate`, and JSON in and out.

`configs/*.py` hold the values; the defaults here are the paper's. Fields that the paper leaves
open are listed with their reasons in ``docs/deviations.md``.
"""

# No postponed annotations here: the command line reads the fields' types.

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from daad_jax import addressing, discriminator, generator, partition
from daad_jax.errors import ConfigError, shown, suggestion

SOURCES = ("textures", "mvtec", "digits", "mnist", "cifar10", "tfds")
VERDICTS = (
    *("A", "R_max", "R_quantile", "R_max_relative", "R_quantile_relative", "R_contrast_relative"),
    *("L_max", "L_max_relative"),
)
RESIZE_FILTERS = ("area", "nearest", "bilinear", "bicubic", "lanczos")

_MOVES_ITEMS = ("nearest_ema", "mnad")
_CUTTING = ("threshold", "threshold_renormalized", "hard_shrinkage")
_MAX_IMAGE_SIZE = 8192
_MAX_DIGITS = 18  # a whole number of so many always fits into 64 bits


@dataclass
class DataConfig:
    """What is trained and evaluated on.

    Attributes:
        source: "textures" (embedded), "mvtec" (a folder in the MVTec AD layout), "digits" (in
            scikit-learn), "mnist", "cifar10", or "tfds" (any labelled set of tensorflow-datasets).
        root: of "mvtec", the folder that holds the categories, or a category itself when
            `category` is ""; of "mnist" and "cifar10", the original files, "" to download them.
        name: of "tfds", the set's name, such as "fashion_mnist".
        category: a category's name, or "all" for each in turn; in labelled sets the class that
            counts as normal, by name or number.
        image_size: height and width in pixels that images are resized to.
        channels: 3, grey images repeated, or 1, colour images converted to luminance.
        resize: filter of the resize; "area" averages the pixels that fall on one.
        brightness: "kept", or "equal": every image is divided by its own mean.
        flip_horizontal: whether training images are mirrored at random.
        flip_vertical: whether training images are turned upside down at random.
        calibration_fraction: share of the normal training images held out to fit the scale and
            threshold of the `calibrated` protocol, at least two; 0 holds out nothing. The
            textures have a region of their own for it, whatever the share.
        memory_limit_mb: when a split's decoded images are more than this many MiB, they are
            memory-mapped from `cache_dir`.
        on_device: whether the training images stay in the devices' memory, whole on each, and are
            not read again for each batch: "yes", "no", or "auto": yes on a GPU or TPU where they
            fit beside the train step. The result is the same.
        cache_dir: folder for decoded images; "" is ``cache`` in the workdir.
        tfds_dir: where tensorflow-datasets keeps prepared sets; "" is its own default,
            ``~/tensorflow_datasets``.
        on_bad_file: what becomes of an image or mask file that cannot be used: "stop" ends in an
            error that names it; "skip" leaves the image out and counts it in a warning.
        max_bad_files: with "skip", the most files of a category that may be left out.
        follow_links: of "mvtec", whether symbolic links may lead out of `root`.
    """

    source: str = "mvtec"
    root: str = ""
    name: str = ""
    category: str = "all"
    image_size: int = 256
    channels: int = 3
    resize: str = "area"
    brightness: str = "kept"
    flip_horizontal: bool = True
    flip_vertical: bool = True
    calibration_fraction: float = 0.0
    memory_limit_mb: int = 4096
    on_device: str = "auto"
    cache_dir: str = ""
    tfds_dir: str = ""
    on_bad_file: str = "stop"
    max_bad_files: int = 100
    follow_links: bool = False


@dataclass
class ModelConfig:
    """The generator.

    Attributes:
        widths: channels of the encoder's stride-2 stages, finest first; the decoder mirrors them.
        skips: whether the decoder sees the stages before the bottleneck.
        skip_join: "concat" or "sum".
        query_from: whether memories see a stage's output "after" or "before" its activation.
        batch_norm_momentum: weight of the old running statistics.
        compute_dtype: what convolutions of both networks compute in, "float32" or "bfloat16".
            Parameters, statistics, similarities, memory reads and losses are float32.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    skips: bool = True
    skip_join: str = "concat"
    query_from: str = "after"
    batch_norm_momentum: float = 0.9
    compute_dtype: str = "float32"


@dataclass
class MemoryConfig:
    """The memories.

    Attributes:
        scales: which connections carry a memory: "all", "bottleneck" or "none".
        items: N, the number of items of each bank.
        division_rates: (r_h, r_w, r_c) for all scales, "pixel", or one of these for each scale.
        addressing: name of the rule, see `docs/addressing.md`, or "module:function" for one's own.
        temperature: what the similarities are divided by.
        init_scale: an item's norm at the start relative to the queries'.
        similarity: "cosine", "dot" (over the square root of D) or "distance" (negative, squared).
        learned_temperature: whether each bank learns its temperature, from `temperature` on.
        banks: "one" for all positions of a scale; "position", one for each; or rows and columns of
            groups of neighbouring positions, such as "2x2", one for each group.
        frozen: whether the items stay random, as a control; not with rules that move them.
        cut: what a weight must reach, as a multiple of 1/N (`threshold`, `threshold_renormalized`),
            or the shrinkage, likewise (`hard_shrinkage`).
        top_k: how many items a read takes at most (`top_k`, `product_key`).
        alpha: above 1, softmax's limit, to 2, sparsemax (`entmax`).
        learned_alpha: whether each bank learns its alpha, from `alpha` on (`entmax`).
        retrieval_steps: T (`hopfield`).
        gumbel_start: temperature of the noisy softmax at step 0 (`gumbel`).
        gumbel_end: its lowest temperature (`gumbel`).
        gumbel_rate: how fast it falls: exp(-rate step) (`gumbel`).
        ema_decay: decay of the running means that the items are (`nearest_ema`).
        margin: by how much the second nearest item is to be further (`mnad`).
        entropy_weight: of the entropy loss (`hard_shrinkage`); rules' losses stand beside
            `loss.rec` times L_rec.
        codebook_weight: of the codebook loss (`nearest`).
        commitment_weight: of the commitment loss (`nearest`, `nearest_ema`).
        compactness_weight: of the compactness loss (`mnad`).
        separateness_weight: of the separateness loss (`mnad`).
        test_update: at evaluation, images whose error (see `docs/addressing.md`) is at most this
            update the items, one image after the other in their order; 0 for never (`mnad`).
    """

    scales: str = "all"
    items: int = 500
    division_rates: object = (8, 8, 1)
    addressing: str = "threshold"
    temperature: float = 1.0
    init_scale: float = 1.0
    similarity: str = "cosine"
    learned_temperature: bool = False
    banks: str = "one"
    frozen: bool = False
    cut: float = 1.0
    top_k: int = 4
    alpha: float = 1.5
    learned_alpha: bool = False
    retrieval_steps: int = 1
    gumbel_start: float = 1.0
    gumbel_end: float = 0.5
    gumbel_rate: float = 1e-3
    ema_decay: float = 0.99
    margin: float = 1.0
    entropy_weight: float = 0.0002
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    compactness_weight: float = 0.1
    separateness_weight: float = 0.1
    test_update: float = 0.0


@dataclass
class DiscriminatorConfig:
    """The discriminator, present when `loss.adv` or `loss.ali` is above 0.

    Attributes:
        width: channels of its first stage; each further one doubles them.
        max_width: the most channels of a stage.
        feature_layer: which stage's activation is f_D; -1 is the last.
        batch_norm: whether real and reconstructed images pass in "separate" batches or "joint".
    """

    width: int = 64
    max_width: int = 512
    feature_layer: int = -1
    batch_norm: str = "separate"


@dataclass
class LossConfig:
    """The losses.

    Attributes:
        rec: lambda_rec.
        adv: lambda_adv; 0 leaves the adversarial loss out.
        ali: lambda_ali; 0 leaves the alignment loss out.
        norm: "mean_squared" over elements, or the mean unsquared "norm", in L_rec and L_ali.
        adversarial: the generator's part, "non_saturating" or "saturating".
        alignment_updates_discriminator: whether L_ali also trains the discriminator.
    """

    rec: float = 50.0
    adv: float = 0.5
    ali: float = 0.5
    norm: str = "mean_squared"
    adversarial: str = "non_saturating"
    alignment_updates_discriminator: bool = False


@dataclass
class TrainConfig:
    """Training.

    Attributes:
        epochs: passes over the training images; used when `steps` is None.
        steps: number of updates; wins over `epochs`.
        batch_size: images per update, over all devices.
        learning_rate: Adam's, for both networks.
        beta1: Adam's.
        beta2: Adam's.
        average_decay: decay of a running average of both networks' weights; above 0, the average
            is what is evaluated. Not in the paper.
        steps_per_dispatch: how many updates the devices are given at once, which spares them the
            host's time between two; the same but for rounding. A signal waits for all of them.
        log_every: steps between lines of metrics.
        checkpoint_every: steps between checkpoints; the last step always has one.
        keep_checkpoints: how many checkpoints stay.
    """

    epochs: Optional[int] = 1000  # noqa: UP045 (the flags' parser knows this spelling)
    steps: Optional[int] = None  # noqa: UP045
    batch_size: int = 8
    learning_rate: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    average_decay: float = 0.0
    steps_per_dispatch: int = 1
    log_every: int = 10
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2


@dataclass
class ScoreConfig:
    """The scores and their evaluation.

    Attributes:
        gamma: weight of R in A; 1 - gamma is L's.
        protocol: which scaling of R and L the score A uses, "paper" or "calibrated".
        map_sigma: standard deviation of the Gaussian that smooths an anomaly map, in pixels.
        map_quantile: quantile of an anomaly map that the localised score R_quantile takes.
        verdict: the score that is held against the threshold: "A" (calibrated) or one of the
            localised scores, which are not the paper's.
        threshold_quantile: quantile of the calibration images' verdict score that is the threshold.
        batch_size: images per batch when scoring.
        bootstrap_samples: resamplings behind a bootstrap interval.
    """

    gamma: float = 0.9
    protocol: str = "paper"
    map_sigma: float = 4.0
    map_quantile: float = 0.98
    verdict: str = "A"
    threshold_quantile: float = 0.99
    batch_size: int = 32
    bootstrap_samples: int = 1000


@dataclass
class Config:
    """Everything a run depends on besides its images.

    Attributes:
        setting: the name of the setting that the config was made from; changes nothing by itself.
        seed: of the initial parameters, the order of the images, flips and the bootstrap.
        data: what is trained and evaluated on.
        model: the generator.
        memory: the memories.
        discriminator: the discriminator.
        loss: the losses.
        train: training.
        score: the scores and their evaluation.
    """

    setting: str = "daad_plus"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)

    @property
    def has_discriminator(self) -> bool:
        """Whether a discriminator is built, so that L(x) exists."""
        return self.loss.adv > 0 or self.loss.ali > 0


_RECONSTRUCTION_ONLY = {
    "loss.adv": 0.0,
    "loss.ali": 0.0,
    "score.gamma": 1.0,
    "train.learning_rate": 1e-4,
}
_NO_MEMORY = {"memory.scales": "none"}
_PIXEL = {"memory.division_rates": partition.PIXEL}

SETTINGS: dict[str, dict[str, Any]] = {
    "ae": {**_RECONSTRUCTION_ONLY, **_NO_MEMORY, "model.skips": False},
    "ae_skip": {**_RECONSTRUCTION_ONLY, **_NO_MEMORY},
    "memae": {
        **_RECONSTRUCTION_ONLY,
        **_PIXEL,
        "memory.scales": "bottleneck",
        "model.skips": False,
    },
    "memae_skip": {**_RECONSTRUCTION_ONLY, **_PIXEL},
    "daad": _RECONSTRUCTION_ONLY,
    "daad_plus": {},
}
"""The six settings of the paper's tables, each as what it changes in `daad_plus`."""


def from_setting(setting: str) -> Config:
    """Returns the paper's config for one of the six settings.

    Raises:
        ConfigError: if there is no setting of that name.
    """
    if setting not in SETTINGS:
        raise ConfigError(f"setting: no setting {setting!r}; {suggestion(setting, SETTINGS)}")
    config = Config(setting=setting)
    for path, value in SETTINGS[setting].items():
        section, name = path.split(".")
        setattr(getattr(config, section), name, value)
    return config


def memory_specs(config: Config) -> tuple[generator.MemorySpec | None, ...]:
    """Returns the memory of each connection, or None for a connection without one.

    Raises:
        ConfigError: if a division rate does not divide its scale, or the rule is a user's own that
            `daad_jax.addressing.permit` did not import or whose shapes are wrong.
    """
    memory, rates = config.memory, _memory_rates(config)
    if not any(rates):
        return tuple(None for _ in rates)
    fields = addressing.Hyperparameters._fields
    hyperparameters = addressing.Hyperparameters(*(getattr(memory, name) for name in fields))
    rule = addressing.get_rule(memory.addressing, hyperparameters)
    if addressing.is_custom(memory.addressing):
        for rate, shape in zip(rates, _scale_sizes(config), strict=True):
            if rate is not None:
                values = math.prod(shape) // math.prod(rate)
                addressing.check_shapes(
                    memory.addressing, rule, memory.items, values, frozen=memory.frozen
                )
    return tuple(
        None
        if rate is None
        else generator.MemorySpec(
            memory.items,
            rate,
            rule,
            memory.temperature,
            memory.init_scale,
            memory.similarity,
            memory.learned_temperature,
            partition.resolve_groups(memory.banks, rate, index),
            memory.frozen,
        )
        for index, rate in enumerate(rates)
    )


def _memory_rates(config: Config) -> tuple[partition.Rates | None, ...]:
    depth = len(config.model.widths)
    carries = {
        "all": [True] * depth,
        "bottleneck": [False] * (depth - 1) + [True],
        "none": [False] * depth,
    }[config.memory.scales]
    return partition.resolve_rates(config.memory.division_rates, _scale_sizes(config), carries)


def _scale_sizes(config: Config) -> tuple[tuple[int, int, int], ...]:
    size = config.data.image_size
    return generator.scale_sizes(size, size, config.model.widths)


def _check_memories(config: Config) -> None:
    """Checks what each memory is made of; imports nothing."""
    memory, name = config.memory, config.memory.addressing
    addressing.check_rule(name)
    scales = zip(_memory_rates(config), _scale_sizes(config), strict=True)
    for index, (rate, shape) in enumerate(scales):
        if rate is None:
            continue
        partition.resolve_groups(memory.banks, rate, index)
        values = math.prod(shape) // math.prod(rate)
        if name == "product_key" and values % 2:
            raise ConfigError(
                f"memory.addressing: 'product_key' halves a block, and those of scale {index + 1} "
                f"have {values} values; change memory.division_rates or model.widths"
            )
    if name == "product_key" and math.isqrt(memory.items) ** 2 != memory.items:
        raise ConfigError(
            f"memory.items: {memory.items} is not a square, as 'product_key' needs; try "
            f"{max(1, round(math.sqrt(memory.items))) ** 2}"
        )
    if name in ("top_k", "product_key") and memory.top_k > memory.items:
        raise ConfigError(f"memory.top_k: {memory.top_k} is more than memory.items, {memory.items}")
    if name == "entmax" and memory.learned_alpha and not 1.01 < memory.alpha < 2:
        raise ConfigError(
            f"memory.alpha: {memory.alpha} must be above 1.01 and below 2 with memory.learned_alpha"
        )
    if memory.frozen and name in _MOVES_ITEMS:
        raise ConfigError(f"memory.frozen: {name!r} moves the items itself; choose another rule")
    if name in _CUTTING and memory.cut > memory.items:
        raise ConfigError(
            f"memory.cut: {memory.cut} / {memory.items} is more than any weight; at most "
            "memory.items leaves something to read"
        )
    if memory.test_update and name != "mnad":
        raise ConfigError(f"memory.test_update: only 'mnad' has it, not {name!r}; set it to 0")
    if memory.test_update and memory.scales == "none":
        raise ConfigError("memory.test_update: memory.scales='none' leaves no items; set it to 0")


def validate(config: Config) -> None:
    """Checks every field that can be checked without the data.

    Raises:
        ConfigError: naming the first field that cannot work and what to do.
    """
    for path, expected in field_types().items():
        value = _get(config, path)
        _check_type(path, value, expected)
        if path in _CHECKS:
            allowed, explanation = _CHECKS[path]
            if not allowed(value):
                raise ConfigError(f"{path}: {value!r} {explanation}")
    if config.setting not in SETTINGS:
        name = config.setting
        raise ConfigError(f"setting: no setting {shown(name)}; {suggestion(name, SETTINGS)}")
    for path, choices in _CHOICES.items():
        value = _get(config, path)
        if value not in choices:
            raise ConfigError(f"{path}: no {shown(value)}; {suggestion(value, choices)}")
    _validate_together(config)


def _validate_together(config: Config) -> None:
    widths, size = config.model.widths, config.data.image_size
    if not widths or any(width < 1 for width in widths):
        raise ConfigError(f"model.widths: {shown(widths)} needs one positive number per stage")
    factor = 2 ** len(widths)
    if factor > _MAX_IMAGE_SIZE:
        raise ConfigError(f"model.widths: {len(widths)} stages are too many for any image size")
    if size % factor:
        raise ConfigError(
            f"data.image_size: {size} is not a multiple of {factor}, which the {len(widths)} "
            "stages of model.widths halve it by"
        )
    _check_memories(config)
    if config.train.steps_per_dispatch > config.train.checkpoint_every:
        raise ConfigError(
            f"train.steps_per_dispatch: {config.train.steps_per_dispatch} is more than "
            f"train.checkpoint_every, {config.train.checkpoint_every}, at which a dispatch ends"
        )
    if config.train.steps is None and config.train.epochs is None:
        raise ConfigError("train.steps: set it or train.epochs")
    if config.train.steps is not None and config.train.steps < 1:
        raise ConfigError(f"train.steps: {config.train.steps} must be at least 1")
    if config.train.epochs is not None and config.train.epochs < 1:
        raise ConfigError(f"train.epochs: {config.train.epochs} must be at least 1")
    if config.score.gamma < 1 and not config.has_discriminator:
        raise ConfigError(
            f"score.gamma: {config.score.gamma} needs a discriminator; set it to 1, or loss.adv or "
            "loss.ali above 0"
        )
    if config.score.verdict.startswith("L") and not config.has_discriminator:
        raise ConfigError(
            f"score.verdict: {config.score.verdict!r} needs a discriminator; set it to 'A', or "
            "loss.adv or loss.ali above 0"
        )
    if config.score.protocol == "calibrated" and not config.data.calibration_fraction:
        raise ConfigError(
            "score.protocol: 'calibrated' needs data.calibration_fraction above 0, for example 0.1"
        )
    if config.has_discriminator:
        stages = discriminator.stage_count(size, size)
        if not -stages <= config.discriminator.feature_layer < stages:
            raise ConfigError(
                f"discriminator.feature_layer: {config.discriminator.feature_layer} is not one of "
                f"the {stages} stages that the discriminator has at {size} px"
            )
    if config.data.source == "mvtec" and not config.data.root:
        raise ConfigError(
            "data.root: give the folder that holds the categories, --config.data.root=FOLDER"
        )
    if config.data.source == "tfds" and not config.data.name:
        raise ConfigError(
            "data.name: give a set's name in tensorflow-datasets, --config.data.name=fashion_mnist"
        )


def _at_least(low: float) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value >= low, f"must be at least {low}")


def _between(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: low <= value <= high, f"must lie from {low} to {high}")


def _above(low: float) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: low < value < float("inf"), f"must be a finite number above {low}")


def _weight() -> tuple[Callable[[Any], bool], str]:
    return (lambda value: 0 <= value < float("inf"), "must be a finite number, 0 or more")


def _share(*, closed: bool) -> tuple[Callable[[Any], bool], str]:
    if closed:
        return (lambda value: 0 <= value <= 1, "must lie between 0 and 1")
    return (lambda value: 0 <= value < 1, "must lie from 0 to below 1")


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda value: 0 <= value < 2**32, "must lie from 0 to 4294967295"),
    "data.image_size": _between(2, _MAX_IMAGE_SIZE),
    "data.channels": (lambda value: value in (1, 3), "must be 1 or 3"),
    "data.calibration_fraction": _share(closed=False),
    "data.memory_limit_mb": _at_least(0),
    "data.max_bad_files": _at_least(0),
    "model.batch_norm_momentum": _share(closed=False),
    "memory.items": _at_least(1),
    "memory.temperature": _above(0),
    "memory.init_scale": _above(0),
    "memory.cut": _weight(),
    "memory.top_k": _at_least(1),
    "memory.alpha": _between(1.01, 2),
    "memory.retrieval_steps": _between(1, 50),
    "memory.gumbel_start": _above(0),
    "memory.gumbel_end": _above(0),
    "memory.gumbel_rate": _weight(),
    "memory.ema_decay": _share(closed=False),
    "memory.margin": _weight(),
    "memory.entropy_weight": _weight(),
    "memory.codebook_weight": _weight(),
    "memory.commitment_weight": _weight(),
    "memory.compactness_weight": _weight(),
    "memory.separateness_weight": _weight(),
    "memory.test_update": _weight(),
    "discriminator.width": _at_least(1),
    "discriminator.max_width": _at_least(1),
    "loss.rec": _weight(),
    "loss.adv": _weight(),
    "loss.ali": _weight(),
    "train.batch_size": _at_least(1),
    "train.learning_rate": _above(0),
    "train.beta1": _share(closed=False),
    "train.beta2": _share(closed=False),
    "train.average_decay": _share(closed=False),
    "train.steps_per_dispatch": _between(1, 1000),
    "train.log_every": _at_least(1),
    "train.checkpoint_every": _at_least(1),
    "train.keep_checkpoints": _at_least(1),
    "score.gamma": _share(closed=True),
    "score.map_sigma": _weight(),
    "score.map_quantile": _share(closed=True),
    "score.threshold_quantile": _share(closed=True),
    "score.batch_size": _between(1, 4096),
    "score.bootstrap_samples": _at_least(1),
}
_CHOICES: dict[str, Iterable[str]] = {
    "data.source": SOURCES,
    "data.resize": RESIZE_FILTERS,
    "data.brightness": ("kept", "equal"),
    "data.on_device": ("auto", "yes", "no"),
    "data.on_bad_file": ("stop", "skip"),
    "model.skip_join": ("concat", "sum"),
    "model.query_from": ("after", "before"),
    "model.compute_dtype": ("float32", "bfloat16"),
    "memory.scales": ("all", "bottleneck", "none"),
    "memory.similarity": tuple(addressing.SIMILARITIES),
    "discriminator.batch_norm": ("separate", "joint"),
    "loss.norm": ("mean_squared", "norm"),
    "loss.adversarial": ("non_saturating", "saturating"),
    "score.protocol": ("paper", "calibrated"),
    "score.verdict": VERDICTS,
}


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested dicts of JSON values (tuples become lists)."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return result


def from_dict(values: dict[str, Any]) -> Config:
    """Rebuilds a config from `to_dict`'s result; fields that are missing keep their defaults.

    Raises:
        ConfigError: if a field is unknown or its value has another type; the message names it.
    """
    return from_flat(flatten(values))


def from_flat(values: dict[str, Any]) -> Config:
    """`from_dict` for one dict from dotted path to value."""
    config = Config()
    for path, value in values.items():
        set_field(config, path, value)
    return config


def set_field(config: Config, path: str, value: Any) -> None:
    """Sets the field that a dotted path names, lists made tuples where the field is a tuple.

    Raises:
        ConfigError: if there is no such field, or the value has another type.
    """
    known = field_types()
    if path not in known:
        raise ConfigError(f"{path}: no such config field; {suggestion(path, known)}")
    expected = known[path]
    _check_type(path, value, expected)
    *section, name = path.split(".")
    holder = getattr(config, section[0]) if section else config
    if expected is float:
        value = float(value)
    setattr(holder, name, _as_tuples(value))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as one dict from dotted path to value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def field_types() -> dict[str, Any]:
    """Returns every config field's dotted path and its type."""
    types: dict[str, Any] = {}
    for entry in dataclasses.fields(Config):
        if dataclasses.is_dataclass(entry.type):
            for inner in dataclasses.fields(entry.type):
                types[f"{entry.name}.{inner.name}"] = inner.type
        else:
            types[entry.name] = entry.type
    return types


def _get(config: Config, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), config)


def _check_type(path: str, value: Any, expected: Any) -> None:
    if not _fits(value, expected):
        raise ConfigError(f"{path}: {shown(value)} is not {_type_name(expected)}")


def _fits(value: Any, expected: Any) -> bool:
    if expected is object:
        return _is_rates(value, nesting=2)
    if expected == Optional[int]:  # noqa: UP045
        return value is None or _fits(value, int)
    if expected == tuple[int, ...]:
        return isinstance(value, (list, tuple)) and all(_fits(item, int) for item in value)
    if expected is float:
        return isinstance(value, float) or _fits(value, int)
    if expected is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and abs(value) < 10**_MAX_DIGITS
    return isinstance(value, expected)


def _is_rates(value: Any, nesting: int) -> bool:
    """Whether a value is made as division rates are; `memory_specs` says whether it fits."""
    if isinstance(value, (list, tuple)):
        return nesting > 0 and all(_is_rates(item, nesting - 1) for item in value)
    return isinstance(value, str) or _fits(value, int)


def _type_name(expected: Any) -> str:
    names: dict[Any, str] = {
        int: f"a whole number of at most {_MAX_DIGITS} digits",
        float: "a number",
        str: "a string",
        bool: "true or false",
        tuple[int, ...]: "a list of whole numbers",
        Optional[int]: "a whole number or null",  # noqa: UP045
        object: "'pixel', three numbers (r_h, r_w, r_c), or one of these for each scale",
    }
    return names[expected]


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
