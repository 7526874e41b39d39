"""Your own folder of images: 64 px, minutes on two CPU cores, with a threshold.

``python train.py --config=configs/folder.py --config.data.root=FOLDER --config.data.category=``

On 498 test images of magnetic tiles (623 to train on): 2 min 20 s on two cores of a shared x86-64
CPU machine, seed 0. Image AUROC of R_max_relative, which gives the verdict, 0.836; of the paper's A
0.719, where PCA has 0.711. ``docs/experiments.md`` says how it was chosen.

Layouts are in ``docs/datasets.md``. This is not the paper's setting, which is ``mvtec.py``.
"""

from daad_jax import config as config_lib
from daad_jax.config import Config


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the config of one of the six settings on a folder of images."""
    config = config_lib.from_setting(setting)
    config.data.source = "mvtec"
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
    config.score.verdict = "R_max_relative"
    config.score.map_sigma = 2.0
    return config
