"""The down- and up-sampling maps that both networks are made of."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

KERNEL_INIT = nn.initializers.normal(0.02)


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU with DCGAN's slope of 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


def down_conv(features: int, *, use_bias: bool, name: str) -> nn.Conv:
    """A 4 x 4 convolution of stride 2: ``(B, H, W, C) -> (B, H // 2, W // 2, features)``."""
    return nn.Conv(
        features,
        (4, 4),
        (2, 2),
        padding=((1, 1), (1, 1)),
        use_bias=use_bias,
        kernel_init=KERNEL_INIT,
        name=name,
    )


def batch_norm(*, train: bool, momentum: float, name: str) -> nn.BatchNorm:
    """Batch normalisation with DCGAN's scale initialisation, N(1, 0.02).

    Args:
        train: batch statistics when true, running statistics when false.
        momentum: weight of the old running value in its update.
        name: the module's name.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=1e-5,
        scale_init=_scale_init,
        name=name,
    )


def _scale_init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def up_sample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 4 x 4 transposed convolution of stride 2, written as one product and overlap-add.

    Equal to PyTorch's ``conv_transpose2d(kernel_size=4, stride=2, padding=1)``: output pixel
    ``2 i + k - 1`` receives tap k of input pixel i. The gradient of the usual spelling is some
    forty times slower on a CPU.

    Args:
        x: ``(B, H, W, C)``.
        kernel: ``(4, 4, C, F)``, the taps along height and width.

    Returns:
        ``(B, 2 H, 2 W, F)``.
    """
    batch, height, width, channels = x.shape
    features = kernel.shape[-1]
    matrix = kernel.transpose(2, 0, 1, 3).reshape(channels, 16 * features)
    taps = (x.reshape(-1, channels) @ matrix).reshape(batch, height, width, 4, 4, features)
    rows = _overlap_add(taps, space_axis=1, tap_axis=3)
    rows = rows.reshape(batch, 2 * height, width, 4, features)
    columns = _overlap_add(rows, space_axis=2, tap_axis=3)
    return columns.reshape(batch, 2 * height, 2 * width, features)


def _overlap_add(taps: jax.Array, *, space_axis: int, tap_axis: int) -> jax.Array:
    """Adds four taps into pairs of neighbours: the tap axis goes, a pair axis follows space."""
    first, even, odd, last = (jnp.take(taps, i, axis=tap_axis) for i in range(4))
    zero = jnp.zeros_like(jax.lax.slice_in_dim(even, 0, 1, axis=space_axis))
    size = even.shape[space_axis]
    from_left = jax.lax.slice_in_dim(last, 0, size - 1, axis=space_axis)
    from_right = jax.lax.slice_in_dim(first, 1, size, axis=space_axis)
    even = even + jnp.concatenate([zero, from_left], axis=space_axis)
    odd = odd + jnp.concatenate([from_right, zero], axis=space_axis)
    return jnp.stack([even, odd], axis=space_axis + 1)


class UpConv(nn.Module):
    """`up_sample` with its parameters.

    Attributes:
        features: F, output channels.
        use_bias: whether a bias ``(F,)`` is added.
        kernel_init: initialiser of the ``(4, 4, C, F)`` kernel.
    """

    features: int
    use_bias: bool
    kernel_init: Callable[..., jax.Array] = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C) -> (B, 2 H, 2 W, features)``."""
        kernel = self.param("kernel", self.kernel_init, (4, 4, x.shape[-1], self.features))
        y = up_sample(x, kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.reshape(1, 1, 1, -1)
        return y
