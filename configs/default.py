"""Textures."""

from daad_jax import config as config_lib
from daad_jax.config import Config


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the config of one of the six settings on the embedded textures."""
    config = config_lib.from_setting(setting)
    config.data.source = "textures"
    config.data.image_size = 64
    config.data.channels = 1
    config.data.calibration_fraction = 0.1
    config.score.protocol = "calibrated"
    config.model.widths = (32, 64, 128, 256)
    config.discriminator.width = 32
    config.discriminator.max_width = 256
    if config.memory.division_rates != "pixel":
        config.memory.division_rates = ((16, 16, 1), (16, 16, 1), (8, 8, 1), (4, 4, 1))
    config.memory.temperature = 0.05
    config.train.steps = 300
    config.train.learning_rate = 1e-3
    config.score.map_sigma = 2.0
    return config
