"""MVTec AD in the paper's setting: 256 px, 1000 epochs. A GPU's work.

Command: ``python train.py --config=configs/mvtec.py:daad_plus --config.data.root=FOLDER
--config.data.category=screw``; all fifteen with ``--config.data.category=all``. It has not been
trained to its end yet, so there is no AUROC to give.
"""

from daad_jax import config as config_lib
from daad_jax.config import Config


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the paper's config of one of the six settings."""
    return config_lib.from_setting(setting)
