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

    Its gradient by `x` is spelled as `up_sample` where H and W are even; XLA's own, a convolution
    of a dilated array, is the slower one at most sizes on a CPU. Both layers have no forward-mode
    derivative (`jax.jvp`).

    Args:
        x: ``(B, H, W, C)``.
        kernel: ``(4, 4, C, F)``.

    Returns:
        ``(B, H // 2, W // 2, F)``.
    """
    return _down(x, kernel)


@jax.custom_vjp
def up_sample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 4 x 4 transposed convolution of stride 2.

    Equal to PyTorch's ``conv_transpose2d(kernel_size=4, stride=2, padding=1)``: output pixel
    ``2 i + k - 1`` receives tap k of input pixel i. Its gradients are those of a convolution, by
    `x` `down_sample` itself.

    Args:
        x: ``(B, H, W, C)``.
        kernel: ``(4, 4, C, F)``, the taps along height and width.

    Returns:
        ``(B, 2 H, 2 W, F)``.
    """
    return _up(x, kernel)


def _down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )


def _up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """In the faster of two spellings on a CPU, by the shapes: docs/performance.md."""
    _, height, width, channels = x.shape
    # A product writes 16 taps for C operations each, a convolution computes a border.
    few_pixels, few_features = height * width <= channels, kernel.shape[-1] < 16
    return _up_by_product(x, kernel) if few_pixels or few_features else _up_by_squares(x, kernel)


def _up_by_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One product to all 16 taps, and overlap-add."""
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


def _up_by_squares(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 2 x 2 convolution of stride 1 to all four pixels of a square."""
    batch, height, width, channels = x.shape
    features = kernel.shape[-1]
    # Tap 2 p + r is pixel r of the square that is p squares away; squares begin one pixel early.
    taps = kernel.reshape(2, 2, 2, 2, channels, features)[::-1, :, ::-1]
    taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, 4 * features)
    squares = jax.lax.conv_general_dilated(
        x, taps, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )
    rows, columns = height + 1, width + 1
    pixels = squares.reshape(batch, rows, columns, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * rows, 2 * columns, features)[:, 1:-1, 1:-1]


def _by_kernel(large: jax.Array, small: jax.Array) -> jax.Array:
    """The gradient of `_down` of the large map by its kernel, for a gradient of the small map."""
    shape = (4, 4, large.shape[-1], small.shape[-1])
    transposed = jax.linear_transpose(
        lambda kernel: _down(large, kernel), jax.ShapeDtypeStruct(shape, large.dtype)
    )
    (gradient,) = transposed(small)
    return gradient


def _down_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    return _down(x, kernel), (x, kernel)


def _down_backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    if x.shape[1] % 2 or x.shape[2] % 2:
        (by_x,) = jax.linear_transpose(lambda x: _down(x, kernel), x)(gradient)
    else:
        by_x = _up(gradient, kernel.swapaxes(2, 3))
    return by_x, _by_kernel(x, gradient)


def _up_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    return _up(x, kernel), (x, kernel)


def _up_backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return _down(gradient, kernel.swapaxes(2, 3)), _by_kernel(gradient, x).swapaxes(2, 3)


down_sample.defvjp(_down_forward, _down_backward)
up_sample.defvjp(_up_forward, _up_backward)


class _Sampling(nn.Module):
    """A map of this module with its parameters.

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
    def _sample(
        self, sample: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array
    ) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (4, 4, x.shape[-1], self.features))
        y = sample(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class DownConv(_Sampling):
    """`down_sample` with its parameters: a kernel and, with `use_bias`, a bias."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C) -> (B, H // 2, W // 2, features)``."""
        return self._sample(down_sample, x)


class UpConv(_Sampling):
    """`up_sample` with its parameters: a kernel and, with `use_bias`, a bias."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C) -> (B, 2 H, 2 W, features)``."""
        return self._sample(up_sample, x)


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
