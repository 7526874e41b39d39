"""Your own folder of images: 64 px, a few minutes on two CPU cores, with a threshold.

Command: ``python train.py --config=folder --config.data.root=FOLDER --config.data.category=``
where FOLDER is the folder of one category; ``docs/datasets.md`` describes its layout.

Result on magnetic tiles (623 training images, 498 test images, seed 0): image AUROC 0.836 of
R_max_relative, the score behind the decision; 0.719 of the paper's A; 0.711 of the PCA baseline. It
took 2 min 20 s on two cores of a shared x86-64 CPU machine. ``docs/experiments.md`` describes how
the values were chosen. They are not the paper's setting, which is the preset ``mvtec``.
"""

from daad_jax.config.schema import Config
from daad_jax.config.settings import from_setting


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the config of one of the six settings on a folder of images."""
    config = from_setting(setting)
    config.data.source = "folder"
    config.data.image_size = 64
    config.data.calibration_fraction = 0.1
    config.model.widths = (16, 32, 64, 128)
    config.memory.items = 100
    config.memory.temperature = 0.05
    if config.memory.division_rates != "pixel":
        config.memory.division_rates = (4, 4, 1)
    config.discriminator.width = 16
    config.discriminator.max_width = 128
    config.train.steps = 3000
    config.train.learning_rate = 1e-3
    config.score.protocol = "calibrated"
    config.score.decision = "R_max_relative"
    config.score.map_sigma = 2.0
    return config
