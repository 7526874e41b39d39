"""Errors over the pixels that count, where padding and an ignored region do not."""

import jax
import jax.numpy as jnp
import numpy as np


def as_weights(channel: jax.Array | None) -> jax.Array | None:
    """The channel of pixels that count, in [-1, 1], as 1.0 where they do and 0.0 elsewhere."""
    return None if channel is None else (channel > 0).astype(jnp.float32)


def keep_others(reconstruction: jax.Array, images: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Replaces a reconstruction ``(B, H, W, C)`` by the images where pixels do not count."""
    return reconstruction if valid is None else jnp.where(valid > 0, reconstruction, images)


def hide_others(maps: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Sets cells of maps ``(B, h, w)`` to 0 of which no pixel counts."""
    if valid is None:
        return maps
    return maps * (cell_shares(valid, (maps.shape[1], maps.shape[2]))[..., 0] > 0)


def cell_shares(valid: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The share of each cell of a map that counts.

    `valid` is ``(B, H, W, 1)``, 1.0 where a pixel counts and 0.0 elsewhere. `size` ``(h, w)`` is
    that of the map. Returns ``(B, h, w, 1)`` in [0, 1].
    """
    if valid.shape[1:3] == size:
        return valid
    down, across = (_cells(*pair) for pair in zip(valid.shape[1:3], size, strict=True))
    precision = jax.lax.Precision.HIGHEST
    return jnp.einsum("ih,bhwc,jw->bijc", down, valid, across, precision=precision)


def count_only(errors: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Weights errors ``(B, h, w, c)`` so that a plain mean over an image is one over what counts.

    An error gets the share of its cell that counts, divided by the mean share of its image. `valid`
    is that of `cell_shares`; with None the errors are unchanged. An image in which nothing counts
    gets zeros.
    """
    if valid is None:
        return errors
    share = cell_shares(valid, (errors.shape[1], errors.shape[2]))
    mean = jnp.mean(share, axis=(1, 2, 3), keepdims=True)
    return errors * (share / jnp.where(mean > 0, mean, 1.0))


def _cells(pixels: int, cells: int) -> np.ndarray:
    """The matrix ``(cells, pixels)`` that averages pixels into cells of equal size."""
    edges = np.linspace(0, pixels, cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(pixels)
    covered = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    return (np.maximum(covered, 0.0) * cells / pixels).astype(np.float32)
