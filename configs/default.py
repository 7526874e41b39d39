"""Textures that travel with the scikit-image wheel: trains and evaluates all three.

Command: ``python train.py``, or ``python train.py --config=configs/default.py:ae``. It takes
3 min on two cores of a shared x86-64 CPU machine. Mean image AUROC of A over the three, with
seed 0: 0.918 (best control 0.718); seed 1: 0.903; setting ``ae`` with the same steps: 0.898.
"""

from daad_jax import config as config_lib
from daad_jax.config import Config


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the config of one of the six settings on the embedded textures."""
    config = config_lib.from_setting(setting)
    config.data.source = "textures"
    config.data.image_size = 64
    config.data.channels = 1
    config.data.calibration_fraction = 0.1
    config.model.widths = (32, 64)
    config.memory.items = 100
    config.memory.temperature = 0.05
    if config.memory.division_rates != "pixel":
        config.memory.division_rates = ((32, 32, 1), (8, 8, 1))
    config.discriminator.width = 16
    config.discriminator.max_width = 128
    config.train.steps = 2000
    config.train.learning_rate = 2e-3
    config.score.protocol = "calibrated"
    config.score.map_sigma = 2.0
    return config
