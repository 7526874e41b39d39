"""The discriminator after DCGAN, which also gives the features f_D (Section 3.1.3)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax.models import layers


class DiscriminatorOutput(NamedTuple):
    """The result of a `Discriminator`.

    Attributes:
        logits: ``(B,)``, above 0 for "real"; float32.
        features: f_D, the activation ``(B, h, w, c)`` of one stage; float32.
    """

    logits: jax.Array
    features: jax.Array


class Discriminator(nn.Module):
    """Stride-2 convolutions until the smaller side is at most 4, then one logit.

    Attributes:
        width: channels of the first stage; each further stage doubles them.
        max_width: the largest number of channels of a stage.
        feature_layer: index of the stage whose activation is f_D; -1 is the last.
        batch_norm_momentum: weight of the old running statistics in their update.
        dtype: the dtype of the convolutions.
    """

    width: int = 64
    max_width: int = 512
    feature_layer: int = -1
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> DiscriminatorOutput:
        """Computes logits and features of images.

        Args:
            images: ``(B, H, W, C)`` in [-1, 1].
            train: batch statistics when true (apply with ``mutable=["batch_stats"]``), running
                statistics when false.
        """
        x, activations = images, []
        for index in range(stage_count(images.shape[1], images.shape[2])):
            width = min(self.width << index, self.max_width)
            name = f"conv_{index + 1}"
            x = layers.DownConv(width, use_bias=index == 0, dtype=self.dtype, name=name)(x)
            if index > 0:
                x = layers.batch_norm(
                    train=train,
                    momentum=self.batch_norm_momentum,
                    name=f"norm_{index + 1}",
                    dtype=self.dtype,
                )(x)
            x = layers.leaky_relu(x)
            activations.append(x)
        head = nn.Dense(1, kernel_init=layers.KERNEL_INIT, name="logit")
        logits = head(layers.at_least_float32(x).reshape(x.shape[0], -1))[:, 0]
        features = layers.at_least_float32(activations[self.feature_layer])
        return DiscriminatorOutput(logits, features)


def stage_count(height: int, width: int) -> int:
    """Number of stride-2 stages until the smaller side is at most 4; at least one."""
    count, side = 1, min(height, width) // 2
    while side > 4:
        count, side = count + 1, side // 2
    return count
