"""Backbones: one file for each pair of encoder and decoder; `model.backbone` names the file.

A new backbone is a new module of this folder with a function ``build(config)`` that returns an
`Encoder` and a `Decoder`. It checks the config fields that it uses. Nothing else has to change:
the sizes of its maps are taken from the encoder itself.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from daad_jax.config import Config
from daad_jax.errors import ConfigError, shown, suggestion


class Encoder(Protocol):
    """A Flax module from images to feature maps. Its fields are hashable."""

    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Encodes images.

        Args:
            images: ``(B, H, W, C)`` in [-1, 1].
            train: batch statistics when true, running statistics when false.

        Returns:
            Feature maps ``(B, H_l, W_l, C_l)``, the finest first and the bottleneck last. Each
            becomes one connection to the decoder, with or without a memory.
        """
        ...


class Decoder(Protocol):
    """A Flax module from feature maps to images. Its fields are hashable."""

    def __call__(self, maps: Sequence[jax.Array], *, train: bool) -> jax.Array:
        """Decodes maps.

        Args:
            maps: one ``(B, H_l, W_l, C_l)`` for each map of the encoder, in the same order.
            train: batch statistics when true, running statistics when false.

        Returns:
            ``(B, H, W, C)`` in [-1, 1], float32.
        """
        ...


def backbone_names() -> list[str]:
    """Lists the values that `model.backbone` can have."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_backbone(config: Config) -> tuple[Any, Any]:
    """Builds the encoder and the decoder that `model.backbone` names.

    Args:
        config: a validated config.

    Returns:
        ``(encoder, decoder)``: Flax modules that follow `Encoder` and `Decoder`.

    Raises:
        ConfigError: if there is no such backbone, or it cannot be built from this config.
    """
    name, known = config.model.backbone, backbone_names()
    if name not in known:
        raise ConfigError(f"model.backbone: no backbone {shown(name)}; {suggestion(name, known)}")
    encoder, decoder = importlib.import_module(f"{__name__}.{name}").build(config)
    return encoder, decoder
