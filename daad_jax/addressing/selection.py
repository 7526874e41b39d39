"""Selecting the largest similarities, also where devices share the items."""

import jax
import jax.numpy as jnp

from daad_jax.runtime import sharding


def are_largest(values: jax.Array, k: int) -> jax.Array:
    """Which k of finite values ``(N,)`` are the largest: bool ``(N,)``, without gradient.

    Of equal values the first ones are taken; k is at most N.
    """
    values = jax.lax.stop_gradient(jnp.where(values == 0.0, 0.0, values))  # no -0.0, a tie of 0.0
    positions = jnp.arange(len(values))
    if not sharding.on_several_devices():
        if k == 1:
            return positions == jnp.argmax(values)
        return jnp.zeros(len(values), bool).at[jax.lax.top_k(values, k)[1]].set(True)
    last, place = _kth_largest(values, positions, k)
    return (values > last) | ((values == last) & (positions <= place))


def _kth_largest(values: jax.Array, positions: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k-th largest value and its position, by maxima alone.

    Where devices share the values, a maximum is one of their own maxima. `jax.lax.top_k` would
    bring the values of all images and items to every device.
    """

    def following(_: int, last: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        value, place = last
        left = (values < value) | ((values == value) & (positions > place))
        largest = jnp.max(jnp.where(left, values, -jnp.inf))
        first = jnp.min(jnp.where(left & (values == largest), positions, len(values)))
        return largest, first

    start = (jnp.asarray(jnp.inf, values.dtype), jnp.asarray(-1, positions.dtype))
    return jax.lax.fori_loop(0, k, following, start)
