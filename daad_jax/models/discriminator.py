"""The discriminator after DCGAN, which also gives the features f_D (Section 3.1.3)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax.models import layers


class DiscriminatorOutput(NamedTuple):
    """The result of a `Discriminator`, in float32.

    The logits ``(B,)`` are above 0 for "real". The features f_D are the activation ``(B, h, w, c)``
    of one stage.
    """

    logits: jax.Array
    features: jax.Array


class Discriminator(nn.Module):
    """Stride-2 convolutions until the smaller side is at most 4, then one logit.

    The first stage has `width` channels, and each later one twice as many, up to `max_width`.
    `feature_layer` is the index of the stage whose activation is f_D; -1 is the last stage.
    """

    width: int = 64
    max_width: int = 512
    feature_layer: int = -1
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> DiscriminatorOutput:
        """Computes logits and features of images ``(B, H, W, C)`` in [-1, 1].

        With `train`, batch normalisation uses batch statistics; apply it then with
        ``mutable=["batch_stats"]``. Otherwise it uses running statistics.
        """
        x, activations, momentum = images, [], self.batch_norm_momentum
        for index in range(stage_count(images.shape[1], images.shape[2])):
            width = min(self.width << index, self.max_width)
            x = layers.stage(x, width, index, train=train, momentum=momentum, dtype=self.dtype)
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
