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

    `widths` are the channels of the stages, finest first. With `before_activation` the returned
    maps are the values before leaky ReLU. `batch_norm_momentum` is the weight of the old running
    statistics. The maps have `dtype`.
    """

    widths: tuple[int, ...]
    before_activation: bool = False
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Encodes images ``(B, H, W, C)`` in [-1, 1]; ``2 ** len(widths)`` must divide H and W.

        With `train`, batch normalisation uses batch statistics; apply it then with
        ``mutable=["batch_stats"]``. Otherwise it uses running statistics. Returns one map ``(B,
        H / 2**l, W / 2**l, widths[l - 1])`` for each stage l, counted from 1, finest first.
        """
        x, maps, momentum = images, [], self.batch_norm_momentum
        for index, width in enumerate(self.widths):
            x = layers.stage(x, width, index, train=train, momentum=momentum, dtype=self.dtype)
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
        """Decodes maps with the shapes and the order that `Encoder` returns.

        `train` has the same meaning as there. Returns float32 ``(B, H, W, channels)`` in [-1, 1].
        """
        if self.activate_maps:
            maps = [layers.leaky_relu(one) for one in maps]
        x, dtype = maps[-1], self.dtype
        options = {"train": train, "momentum": self.batch_norm_momentum, "dtype": dtype}
        for stage in range(len(self.widths), 1, -1):
            width = self.widths[stage - 2]
            x = layers.Conv(width, use_bias=False, up=True, dtype=dtype, name=f"conv_{stage}")(x)
            x = jax.nn.relu(layers.batch_norm(name=f"norm_{stage}", **options)(x))
            if self.skips:
                skip = maps[stage - 2]
                x = x + skip if self.skip_join == "sum" else jnp.concatenate([x, skip], axis=-1)
        x = layers.Conv(self.channels, use_bias=True, up=True, dtype=dtype, name="conv_1")(x)
        return jnp.tanh(layers.at_least_float32(x))


def build(config: Config) -> tuple[Encoder, Decoder]:
    """Builds the encoder and the decoder from `model`, the size of images and `data.channels`.

    Raises ConfigError if the stages do not halve the height and the width evenly.
    """
    model, data = config.model, config.data
    widths = tuple(model.widths)
    factor = 2 ** len(widths)
    for side in data.network_size:
        if side % factor:
            raise ConfigError(
                f"data.{'tile' if data.tile else 'image_size'}: {side} is not a multiple of "
                f"{factor}, by which the {len(widths)} stages of model.widths divide it; choose a "
                "multiple, or fewer stages"
            )
    before = model.query_from == "before"
    momentum, dtype = model.batch_norm_momentum, jnp.dtype(model.compute_dtype)
    encoder = Encoder(widths, before, momentum, dtype)
    decoder = Decoder(
        widths, config.data.channels, model.skips, model.skip_join, before, momentum, dtype
    )
    return encoder, decoder
