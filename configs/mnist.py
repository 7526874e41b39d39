"""Door to the preset `mnist`, which has the values, the command and the results."""

from daad_jax.config.presets.mnist import get_config

__all__ = ["get_config"]
