"""Down- and up-sampling convolutions and batch normalisation, used by both networks.

Convolutions and products run at the backend's default precision: full float32 on a CPU, TF32 or
bfloat16 inputs on most GPUs and TPUs. The environment variable ``JAX_DEFAULT_MATMUL_PRECISION``
changes it, for example to ``highest``. Up-sampling has two implementations with equal results. The
shapes decide which one is used, by measured times on a CPU (docs/performance.md).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

KERNEL_INIT = nn.initializers.normal(0.02)
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def at_least_float32(x: jax.Array) -> jax.Array:
    """Converts bfloat16 to float32; float32 and float64 are unchanged. Any shape."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU with DCGAN's slope of 0.2 for negative values; any shape."""
    return jax.nn.leaky_relu(x, 0.2)


@jax.custom_vjp
def down_sample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """4 x 4 convolution with stride 2 and padding 1.

    It maps ``(B, H, W, C)`` to ``(B, H // 2, W // 2, F)`` with a kernel ``(4, 4, C, F)``.

    Where H and W are even, its gradient with respect to `x` is computed like `up_sample`: XLA's
    own gradient, a convolution of a dilated array, is slower at most sizes on a CPU. There is no
    forward-mode derivative (`jax.jvp`).
    """
    return _down(x, kernel)


@jax.custom_vjp
def up_sample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """4 x 4 transposed convolution with stride 2.

    It maps ``(B, H, W, C)`` to ``(B, 2 H, 2 W, F)`` with a kernel ``(4, 4, C, F)``.

    Equal to PyTorch's ``conv_transpose2d(kernel_size=4, stride=2, padding=1)``: output pixel
    ``2 i + k - 1`` receives tap k of input pixel i. Its gradient with respect to `x` is
    `down_sample`. There is no forward-mode derivative (`jax.jvp`).
    """
    return _up(x, kernel)


def _down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )


def _up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Chooses the implementation that is faster on a CPU (docs/performance.md)."""
    _, height, width, channels = x.shape
    # The product stores 16 taps of each pixel and feature; the convolution computes an extra
    # border of pixels.
    few_pixels, few_features = height * width <= channels, kernel.shape[-1] < 16
    return _up_by_product(x, kernel) if few_pixels or few_features else _up_by_squares(x, kernel)


def _up_by_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes all 16 taps of each pixel in one matrix product, then adds overlapping taps."""
    batch, height, width, channels = x.shape
    features = kernel.shape[-1]
    matrix = kernel.transpose(2, 0, 1, 3).reshape(channels, 16 * features)
    taps = (x.reshape(-1, channels) @ matrix).reshape(batch, height, width, 4, 4, features)
    rows = _overlap_add(taps, space_axis=1, tap_axis=3)
    rows = rows.reshape(batch, 2 * height, width, 4, features)
    columns = _overlap_add(rows, space_axis=2, tap_axis=3)
    return columns.reshape(batch, 2 * height, 2 * width, features)


def _overlap_add(taps: jax.Array, *, space_axis: int, tap_axis: int) -> jax.Array:
    """Sums four taps into pairs of output pixels.

    The tap axis is removed; an axis of the two pixels is added after the space axis.
    """
    first, even, odd, last = (jnp.take(taps, i, axis=tap_axis) for i in range(4))
    zero = jnp.zeros_like(jax.lax.slice_in_dim(even, 0, 1, axis=space_axis))
    size = even.shape[space_axis]
    from_left = jax.lax.slice_in_dim(last, 0, size - 1, axis=space_axis)
    from_right = jax.lax.slice_in_dim(first, 1, size, axis=space_axis)
    even = even + jnp.concatenate([zero, from_left], axis=space_axis)
    odd = odd + jnp.concatenate([from_right, zero], axis=space_axis)
    return jnp.stack([even, odd], axis=space_axis + 1)


def _up_by_squares(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes the four pixels of each output square with a 2 x 2 convolution of stride 1."""
    batch, height, width, channels = x.shape
    features = kernel.shape[-1]
    # Tap 2 p + r belongs to pixel r of the square p squares away. Squares start one pixel before
    # the output, so the first and the last pixel are cut off.
    taps = kernel.reshape(2, 2, 2, 2, channels, features)[::-1, :, ::-1]
    taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, 4 * features)
    squares = jax.lax.conv_general_dilated(
        x, taps, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )
    rows, columns = height + 1, width + 1
    pixels = squares.reshape(batch, rows, columns, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * rows, 2 * columns, features)[:, 1:-1, 1:-1]


def _by_kernel(large: jax.Array, small: jax.Array) -> jax.Array:
    """Gradient of ``_down(large, kernel)`` with respect to the kernel; `small` is the cotangent."""
    shape = (4, 4, large.shape[-1], small.shape[-1])
    transposed = jax.linear_transpose(
        lambda kernel: _down(large, kernel), jax.ShapeDtypeStruct(shape, large.dtype)
    )
    (gradient,) = transposed(small)
    return gradient


def _down_backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    if x.shape[1] % 2 or x.shape[2] % 2:
        (by_x,) = jax.linear_transpose(lambda x: _down(x, kernel), x)(gradient)
    else:
        by_x = _up(gradient, kernel.swapaxes(2, 3))
    return by_x, _by_kernel(x, gradient)


def _up_backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return _down(gradient, kernel.swapaxes(2, 3)), _by_kernel(gradient, x).swapaxes(2, 3)


down_sample.defvjp(lambda x, kernel: (_down(x, kernel), (x, kernel)), _down_backward)
up_sample.defvjp(lambda x, kernel: (_up(x, kernel), (x, kernel)), _up_backward)


class Conv(nn.Module):
    """`down_sample` or `up_sample` with a learned float32 kernel ``(4, 4, C, features)``.

    `use_bias` adds a learned bias ``(features,)``. The convolution is computed in `dtype`.
    """

    features: int
    use_bias: bool
    up: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(B, H, W, C)`` to ``(B, H/2, W/2, features)``, or ``(B, 2H, 2W, features)``."""
        kernel = self.param("kernel", KERNEL_INIT, (4, 4, x.shape[-1], self.features))
        sample = up_sample if self.up else down_sample
        y = sample(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def stage(x: jax.Array, features: int, index: int, **options: Any) -> jax.Array:
    """One stage of an encoder without its activation: convolution and batch normalisation.

    The first stage, with index 0, has no normalisation. Call it in a module's `nn.compact` method.
    The options are those of `batch_norm`, without its name.
    """
    name, dtype = f"conv_{index + 1}", options["dtype"]
    x = Conv(features, use_bias=index == 0, dtype=dtype, name=name)(x)
    return batch_norm(name=f"norm_{index + 1}", **options)(x) if index else x


def batch_norm(
    *, train: bool, momentum: float, name: str, dtype: Any = jnp.float32
) -> nn.BatchNorm:
    """Builds batch normalisation with DCGAN's initial scales, N(1, 0.02).

    With `train` it uses batch statistics, otherwise running statistics. `momentum` is the weight of
    the old running statistics. The result has `dtype`; statistics are always float32.
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
