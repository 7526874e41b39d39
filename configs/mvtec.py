"""MVTec AD in the paper's setting."""

from daad_jax import config as config_lib
from daad_jax.config import Config


def get_config(setting: str = "daad_plus") -> Config:
    """Returns the paper's config of one of the six settings."""
    return config_lib.from_setting(setting)
