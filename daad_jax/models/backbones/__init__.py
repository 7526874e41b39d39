"""Backbones: one file for each pair of encoder and decoder; `model.backbone` names the file.

A new backbone is a new module of this folder with a function ``build(config)``. It checks the
config fields that it uses, and returns an encoder and a decoder: Flax modules with hashable fields.

``encoder(images, train=...)`` turns ``(B, H, W, C)`` in [-1, 1] into maps ``(B, H_l, W_l, C_l)``,
the finest first and the bottleneck last. Each map becomes a connection to the decoder, with or
without a memory. ``decoder(maps, train=...)`` gets maps of the same shapes in the same order, and
returns float32 ``(B, H, W, C)`` in [-1, 1].
"""

import importlib
import pkgutil
from typing import Any

from daad_jax.config import Config
from daad_jax.errors import ConfigError, shown, suggestion


def build_backbone(config: Config) -> tuple[Any, Any]:
    """Builds the encoder and the decoder that `model.backbone` names.

    Returns ``(encoder, decoder)``, Flax modules as this module describes them. Raises ConfigError
    if there is no such backbone, or it cannot be built from this config.
    """
    name = config.model.backbone
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise ConfigError(f"model.backbone: no backbone {shown(name)}; {suggestion(name, known)}")
    encoder, decoder = importlib.import_module(f"{__name__}.{name}").build(config)
    return encoder, decoder
