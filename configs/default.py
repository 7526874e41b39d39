"""Door to the preset `default`, which has the values, the command and the results."""

from daad_jax.config.presets.default import get_config

__all__ = ["get_config"]
