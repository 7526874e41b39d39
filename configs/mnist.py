"""MNIST, one digit normal: the train split of that digit, the whole test split.

``python train.py --config=configs/mnist.py --config.data.category=8``: a few minutes on two CPU
cores. The set is downloaded; ``--config.data.root=FOLDER`` takes the four original files instead.
"""

from daad_jax import config as config_lib
from daad_jax.config import Config


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the config of one of the six settings on MNIST."""
    config = config_lib.from_setting(setting)
    config.data.source = "mnist"
    config.data.image_size = 32
    config.data.channels = 1
    config.data.resize = "bilinear"
    config.data.flip_horizontal = False
    config.data.flip_vertical = False
    config.data.calibration_fraction = 0.1
    config.score.protocol = "calibrated"
    config.model.widths = (16, 32, 64, 128)
    config.discriminator.width = 16
    config.discriminator.max_width = 128
    if config.memory.division_rates != "pixel":
        config.memory.division_rates = ((8, 8, 1), (4, 4, 1), (4, 4, 1), (2, 2, 1))
    config.memory.items = 100
    config.memory.temperature = 0.1
    config.train.steps = 2000
    config.train.learning_rate = 1e-3
    config.score.map_sigma = 1.0
    return config
