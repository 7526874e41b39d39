"""The preset `cifar10`; its values, command and results are in `daad_jax/config/presets.py`."""

from daad_jax.config.presets import cifar10 as get_config

__all__ = ["get_config"]
