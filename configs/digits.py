"""The scanned digits in scikit-learn, one of them normal; nothing is downloaded.

``python train.py --config=configs/digits.py --config.data.category=8``: about a minute on two CPU
cores.
"""

from daad_jax import config as config_lib
from daad_jax.config import Config


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the config of one of the six settings on the digits."""
    config = config_lib.from_setting(setting)
    config.data.source = "digits"
    config.data.image_size = 32
    config.data.channels = 1
    config.data.resize = "bilinear"
    config.data.flip_horizontal = False
    config.data.flip_vertical = False
    config.data.calibration_fraction = 0.1
    config.score.protocol = "calibrated"
    config.model.widths = (16, 32, 64)
    config.discriminator.width = 16
    config.discriminator.max_width = 64
    if config.memory.division_rates != "pixel":
        config.memory.division_rates = (4, 4, 1)
    config.memory.items = 100
    config.memory.temperature = 0.1
    config.train.steps = 1000
    config.train.learning_rate = 1e-3
    config.score.map_sigma = 1.0
    return config
