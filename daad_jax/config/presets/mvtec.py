"""MVTec AD in the paper's setting: 256 px, 1000 epochs; it needs a GPU.

Command: ``python train.py --config=mvtec --config.data.root=FOLDER --config.data.category=screw``,
or ``--config.data.category=all`` for all fifteen categories. No training with it has been
completed yet, so there is no AUROC to report.
"""

from daad_jax.config.schema import Config
from daad_jax.config.settings import from_setting


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the paper's config of one of the six settings."""
    return from_setting(setting)
