"""The handwritten digits of scikit-learn, one class normal; nothing is downloaded.

Command: ``python train.py --config=digits --config.data.category=8``. It takes about a minute on
two CPU cores.
"""

from daad_jax.config.schema import Config
from daad_jax.config.settings import from_setting


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the config of one of the six settings on the digits."""
    config = from_setting(setting)
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
