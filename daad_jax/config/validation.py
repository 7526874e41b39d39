"""Checks of a whole config."""

from daad_jax.config.folders import folder_names
from daad_jax.config.schema import Config, DataConfig
from daad_jax.config.settings import check_setting
from daad_jax.config.text import check_type, fields, get_field
from daad_jax.errors import ConfigError


def validate(config: Config) -> None:
    """Checks each field by itself, and the combinations that only need the config's values.

    `daad_jax.check` calls this and adds the checks of the other packages. Raises ConfigError, which
    names the first field that cannot work and says what to do.
    """
    for path, declared in fields().items():
        value, check = get_field(config, path), declared.metadata["check"]
        check_type(path, value, declared.type)
        problem = check.problem(value) if check else ""
        if problem:
            raise ConfigError(f"{path}: {problem}")
    check_setting(config.setting)
    folder_names(config.data)
    for name in ("good", "bad", "test_fraction"):
        default = DataConfig.__dataclass_fields__[name].default
        if config.data.source != "folder" and getattr(config.data, name) != default:
            raise ConfigError(
                f"data.{name}: is for the source 'folder', not for {config.data.source!r}; leave "
                "it out"
            )
    config.loss.weights()
    _check_sizes(config)
    if config.train.steps is None and config.train.epochs is None:
        raise ConfigError("train.steps: None, as is train.epochs; set one of them")
    if config.score.gamma < 1 and not config.has_discriminator:
        raise ConfigError(
            f"score.gamma: {config.score.gamma} needs a discriminator; set it to 1, or loss.adv or "
            "loss.ali above 0"
        )
    if config.score.map in ("features", "fused") and not config.has_discriminator:
        raise ConfigError(
            f"score.map: {config.score.map!r} needs a discriminator; set it to 'relative', or "
            "loss.adv or loss.ali above 0"
        )
    if any(sigma < config.score.map_sigma for sigma in config.score.map_scales):
        raise ConfigError(
            f"score.map_scales: {config.score.map_scales} has one below score.map_sigma="
            f"{config.score.map_sigma:g}; lower score.map_sigma to it"
        )
    if config.score.protocol == "calibrated" and not config.data.calibration_fraction:
        raise ConfigError(
            "score.protocol: 'calibrated' needs data.calibration_fraction above 0; set it to 0.1, "
            "for example, or the protocol to 'paper'"
        )


def _check_sizes(config: Config) -> None:
    data = config.data
    data.ignored_boxes()
    size, own = data.network_size, data.picture_size
    if min(size) < 2 or size[0] > own[0] or size[1] > own[1]:
        raise ConfigError(
            f"data.tile: {data.tile!r} must be from 2 px to data.image_size, "
            f"{own[0]} x {own[1]} px, on both sides; lower it, or set it to 0"
        )
    if config.train.corruption == "rotate" and size[0] != size[1]:
        raise ConfigError(
            f"train.corruption: 'rotate' needs squares, and the networks get {size[0]} x {size[1]} "
            "px; choose another, or set data.image_size or data.tile to a square"
        )
