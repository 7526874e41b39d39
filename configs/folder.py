"""Door to the preset `folder`, which has the values, the command and the results."""

from daad_jax.config.presets.folder import get_config

__all__ = ["get_config"]
