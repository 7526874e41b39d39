"""The default backbone: stride-2 convolutions after DCGAN (Radford et al., ICLR 2016)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax.config import Config
from daad_jax.errors import ConfigError
from daad_jax.models import layers


class Encoder(nn.Module):
    """Stages of convolution, batch normalisation (not in the first) and leaky ReLU.

    Attributes:
        widths: channels of the stages, finest first.
        before_activation: whether the returned maps are the stages' values before leaky ReLU.
        batch_norm_momentum: weight of the old running statistics in their update.
        dtype: the dtype of the computation and of the maps.
    """

    widths: tuple[int, ...]
    before_activation: bool = False
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Encodes images.

        Args:
            images: ``(B, H, W, C)`` in [-1, 1]; ``2 ** len(widths)`` divides H and W.
            train: batch statistics when true (apply with ``mutable=["batch_stats"]``), running
                statistics when false.

        Returns:
            For stage l, counted from 1, ``(B, H / 2**l, W / 2**l, widths[l - 1])``; finest first.
        """
        x, maps = images, []
        for index, width in enumerate(self.widths):
            first = index == 0
            name = f"conv_{index + 1}"
            x = layers.DownConv(width, use_bias=first, dtype=self.dtype, name=name)(x)
            if not first:
                x = layers.batch_norm(
                    train=train,
                    momentum=self.batch_norm_momentum,
                    dtype=self.dtype,
                    name=f"norm_{index + 1}",
                )(x)
            before, x = x, layers.leaky_relu(x)
            maps.append(before if self.before_activation else x)
        return tuple(maps)


class Decoder(nn.Module):
    """Stages of transposed convolution, batch normalisation and ReLU; tanh at the end.

    Attributes:
        widths: channels of the encoder's stages, finest first; the decoder mirrors them.
        channels: channels of the image.
        skips: whether the maps before the bottleneck are used.
        skip_join: ``"concat"`` or ``"sum"``: how they are joined to the decoder's own values.
        activate_maps: whether the maps pass through leaky ReLU first; true when the encoder
            returns its maps before the activation.
        batch_norm_momentum: weight of the old running statistics in their update.
        dtype: the dtype of the computation.
    """

    widths: tuple[int, ...]
    channels: int
    skips: bool = True
    skip_join: str = "concat"
    activate_maps: bool = False
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], *, train: bool) -> jax.Array:
        """Decodes maps.

        Args:
            maps: one ``(B, H / 2**l, W / 2**l, widths[l - 1])`` for each stage l, counted from 1;
                finest first.
            train: batch statistics when true (apply with ``mutable=["batch_stats"]``), running
                statistics when false.

        Returns:
            ``(B, H, W, channels)`` in [-1, 1], float32.
        """
        if self.activate_maps:
            maps = [layers.leaky_relu(one) for one in maps]
        x = maps[-1]
        for stage in range(len(self.widths), 1, -1):
            x = self._up_conv(self.widths[stage - 2], False, stage)(x)
            x = layers.batch_norm(
                train=train,
                momentum=self.batch_norm_momentum,
                dtype=self.dtype,
                name=f"norm_{stage}",
            )(x)
            x = jax.nn.relu(x)
            if self.skips:
                skip = maps[stage - 2]
                x = x + skip if self.skip_join == "sum" else jnp.concatenate([x, skip], axis=-1)
        return jnp.tanh(layers.at_least_float32(self._up_conv(self.channels, True, 1)(x)))

    def _up_conv(self, features: int, use_bias: bool, stage: int) -> layers.UpConv:
        return layers.UpConv(features, use_bias=use_bias, dtype=self.dtype, name=f"conv_{stage}")


def build(config: Config) -> tuple[Encoder, Decoder]:
    """Builds the encoder and the decoder.

    Args:
        config: a validated config; `model`, `data.image_size` and `data.channels` are used.

    Raises:
        ConfigError: if the stages do not halve the image size evenly.
    """
    model, size = config.model, config.data.image_size
    widths = tuple(model.widths)
    factor = 2 ** len(widths)
    if size % factor:
        raise ConfigError(
            f"data.image_size: {size} is not a multiple of {factor}, by which the {len(widths)} "
            "stages of model.widths divide it; choose a multiple, or fewer stages"
        )
    before = model.query_from == "before"
    momentum, dtype = model.batch_norm_momentum, jnp.dtype(model.compute_dtype)
    encoder = Encoder(widths, before, momentum, dtype)
    decoder = Decoder(
        widths, config.data.channels, model.skips, model.skip_join, before, momentum, dtype
    )
    return encoder, decoder
