"""The six settings of the paper's tables."""

from typing import Any

from daad_jax.config.schema import Config
from daad_jax.config.text import set_field
from daad_jax.errors import ConfigError, shown, suggestion

_RECONSTRUCTION_ONLY = {
    "loss.adv": 0.0,
    "loss.ali": 0.0,
    "score.gamma": 1.0,
    "train.learning_rate": 1e-4,
}
_NO_MEMORY = {"memory.scales": "none"}
_PIXEL = {"memory.division_rates": "pixel"}

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
"""The fields of each setting that differ from `daad_plus`, which has the schema's defaults."""


def check_setting(setting: Any) -> None:
    """Raises ConfigError if there is no setting of that name."""
    if setting not in SETTINGS:
        raise ConfigError(f"setting: no setting {shown(setting)}; {suggestion(setting, SETTINGS)}")


def from_setting(setting: str) -> Config:
    """Returns the paper's config for one of the six settings.

    Raises ConfigError if there is no setting of that name.
    """
    check_setting(setting)
    config = Config(setting=setting)
    for path, value in SETTINGS[setting].items():
        set_field(config, path, value)
    return config
