"""Door to the preset `mvtec`, which has the values, the command and the results."""

from daad_jax.config.presets.mvtec import get_config

__all__ = ["get_config"]
