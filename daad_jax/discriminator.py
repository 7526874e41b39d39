"""The discriminator after DCGAN, and the features f_D it is kept for (Section 3.1.3)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax import layers


class Discriminator(nn.Module):
    """Stride-2 convolutions down to 4 x 4 or less, then one logit.

    Attributes:
        width: channels of the first stage; each further stage doubles them.
        max_width: the most channels of a stage.
        feature_layer: which stage's activation is f_D; -1 is the last.
        batch_norm_momentum: weight of the old running statistics.
        dtype: what convolutions compute in.
    """

    width: int = 64
    max_width: int = 512
    feature_layer: int = -1
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Judges images.

        Args:
            images: ``(B, H, W, C)`` in [-1, 1].
            train: batch statistics when true (apply with ``mutable=["batch_stats"]``), running
                statistics when false.

        Returns:
            Logits ``(B,)``, above 0 for "real", and f_D ``(B, h, w, c)``, an activation; float32.
        """
        x, activations = images, []
        for index in range(stage_count(images.shape[1], images.shape[2])):
            width = min(self.width << index, self.max_width)
            conv = layers.DownConv(
                width, use_bias=index == 0, dtype=self.dtype, name=f"conv_{index + 1}"
            )
            x = conv(x)
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
        return logits, layers.at_least_float32(activations[self.feature_layer])


def stage_count(height: int, width: int) -> int:
    """How many stride-2 stages bring the smaller side down to 4 or less; at least one."""
    count, side = 1, min(height, width) // 2
    while side > 4:
        count, side = count + 1, side // 2
    return count
