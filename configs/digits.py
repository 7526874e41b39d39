"""Door to the preset `digits`, which has the values, the command and the results."""

from daad_jax.config.presets.digits import get_config

__all__ = ["get_config"]
