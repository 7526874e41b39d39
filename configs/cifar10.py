"""Door to the preset `cifar10`, which has the values, the command and the results."""

from daad_jax.config.presets.cifar10 import get_config

__all__ = ["get_config"]
