"""The down- and up-sampling maps that both networks are made of."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

KERNEL_INIT = nn.initializers.normal(0.02)
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def at_least_float32(x: jax.Array) -> jax.Array:
    """Widens bfloat16 to float32 and leaves wider types."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU with DCGAN's slope of 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


@jax.custom_vjp
def down_sample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 4 x 4 convolution of stride 2 and padding 1.

    Its gradient by `x` is spelled as `up_sample` where the map is small, and else as a 2 x 2
    convolution of stride 1 to all four pixels of a square; XLA's own, a convolution of a dilated
    array, takes up to twice as long on a CPU.

    Args:
        x: ``(B, H, W, C)``, H and W even.
        kernel: ``(4, 4, C, F)``.

    Returns:
        ``(B, H // 2, W // 2, F)``.
    """
    return _strided(x, kernel)


def _strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )


def _down_sample_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    return _strided(x, kernel), (x, kernel)


def _down_sample_backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    _, height, width, features = gradient.shape
    # A product's memory traffic per operation falls with F, a convolution's border with the map.
    small = height * width <= features
    by_x = up_sample(gradient, kernel.swapaxes(2, 3)) if small else _dense(gradient, kernel)
    (by_kernel,) = jax.linear_transpose(lambda k: _strided(x, k), kernel)(gradient)
    return by_x, by_kernel


def _dense(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
    batch, height, width, features = gradient.shape
    channels = kernel.shape[2]
    # Tap 2 p + r is pixel r of the square that is p squares away; squares begin one pixel early.
    taps = kernel.reshape(2, 2, 2, 2, channels, features)[::-1, :, ::-1]
    taps = taps.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, features, 4 * channels)
    squares = jax.lax.conv_general_dilated(
        gradient, taps, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )
    rows, columns = height + 1, width + 1
    pixels = squares.reshape(batch, rows, columns, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * rows, 2 * columns, channels)[:, 1:-1, 1:-1]


down_sample.defvjp(_down_sample_forward, _down_sample_backward)


class DownConv(nn.Module):
    """`down_sample` with its parameters.

    Attributes:
        features: F, output channels.
        use_bias: whether a bias ``(F,)`` is added.
        dtype: what it computes in; parameters are float32.
        kernel_init: initialiser of the ``(4, 4, C, F)`` kernel.
    """

    features: int
    use_bias: bool
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C) -> (B, H // 2, W // 2, features)``."""
        kernel = self.param("kernel", self.kernel_init, (4, 4, x.shape[-1], self.features))
        return _biased(self, down_sample(x.astype(self.dtype), kernel.astype(self.dtype)))


def batch_norm(
    *, train: bool, momentum: float, name: str, dtype: Any = jnp.float32
) -> nn.BatchNorm:
    """Batch normalisation with DCGAN's scale initialisation, N(1, 0.02).

    Args:
        train: batch statistics when true, running statistics when false.
        momentum: weight of the old running value in its update.
        name: the module's name.
        dtype: of the result; statistics are float32 whatever it is.
    """
    return nn.BatchNorm(
        dtype=dtype,
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
        dtype: what it computes in; parameters are float32.
        kernel_init: initialiser of the ``(4, 4, C, F)`` kernel.
    """

    features: int
    use_bias: bool
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C) -> (B, 2 H, 2 W, features)``."""
        kernel = self.param("kernel", self.kernel_init, (4, 4, x.shape[-1], self.features))
        return _biased(self, up_sample(x.astype(self.dtype), kernel.astype(self.dtype)))


def _biased(module: DownConv | UpConv, y: jax.Array) -> jax.Array:
    if not module.use_bias:
        return y
    bias = module.param("bias", nn.initializers.zeros, (module.features,))
    return y + bias.astype(module.dtype).reshape(1, 1, 1, -1)
