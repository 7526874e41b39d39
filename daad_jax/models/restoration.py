"""Restoration: the generator gets a corrupted image and is trained to give the clean one.

An extension of the paper, which calls it complementary. Sources: rotated and grey images, ITAE
(Huang et al., 2019); masked cells, RIAD (Zavrtanik et al., Pattern Recognition 2021); stains, AESc
(Collin and De Vleeschouwer, ICPR 2020).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_CELLS = 8  # cells along a side for `inpaint`
_BLOB = 5  # side of the noise from which the blobs of `stain` are made
_STAIN = 1.5  # standard deviations of the noise above which there is a stain
_PARTS = 4  # disjoint sets of cells, of which one is masked at a time


def corrupt(kind: str, key: jax.Array, images: jax.Array) -> jax.Array:
    """Corrupts each training image ``(B, H, W, C)`` in [-1, 1] at random. Pure.

    ``rotate`` turns it by a multiple of 90 degrees, ``grey`` replaces each channel by their mean,
    ``inpaint`` sets a quarter of its cells to 0, ``stain`` adds soft dark or bright blobs, and
    ``none`` changes nothing.
    """
    if kind == "rotate":
        turns = jax.random.randint(key, (len(images),), 0, 4)
        return jax.vmap(_rotated)(images, turns)
    if kind == "inpaint":
        part = jax.random.randint(key, (len(images), 1, 1, 1), 0, _PARTS)
        shuffled = jax.vmap(lambda one: _parts(images.shape, one))(
            jax.random.split(key, len(images))
        )
        return jnp.where(shuffled == part, 0.0, images)
    if kind == "stain":
        return _stained(key, images)
    return _grey(images) if kind == "grey" else images


def restorations(
    kind: str, rebuild: Callable[[jax.Array], jax.Array], images: jax.Array
) -> list[jax.Array]:
    """Restores clean images ``(B, H, W, C)`` with `rebuild`, the generator's reconstruction.

    Returns reconstructions of the images, each of their shape: with ``rotate`` one from each of the
    four turns; with ``inpaint`` one that is put together from disjoint masks, so that each pixel is
    rebuilt without having been seen; otherwise one.
    """
    if kind == "rotate":
        return [rebuild(jnp.rot90(images, turn, (1, 2))) for turn in range(4)]
    if kind == "inpaint":
        parts = _parts(images.shape, jax.random.key(0))
        return [
            sum(
                (
                    jnp.where(parts == one, rebuild(jnp.where(parts == one, 0.0, images)), 0.0)
                    for one in range(_PARTS)
                ),
                jnp.zeros_like(images),
            )
        ]
    return [rebuild(_grey(images) if kind == "grey" else images)]


def _rotated(image: jax.Array, turns: jax.Array) -> jax.Array:
    return jax.lax.switch(turns, [lambda x, k=k: jnp.rot90(x, k) for k in range(4)], image)


def _grey(images: jax.Array) -> jax.Array:
    return jnp.broadcast_to(images.mean(-1, keepdims=True), images.shape)


def _parts(shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """Assigns the cells of an image to the parts at random, evenly: ``(H, W, 1)`` in 0 to 3."""
    cells = jax.random.permutation(key, jnp.arange(_CELLS * _CELLS) % _PARTS)
    rows, columns = (jnp.arange(side) * _CELLS // side for side in shape[1:3])
    return cells.reshape(_CELLS, _CELLS)[rows[:, None], columns[None, :], None]


def _stained(key: jax.Array, images: jax.Array) -> jax.Array:
    """Adds blobs where smooth noise is high, of at most 2.5 standard deviations of the batch."""
    where, strength = jax.random.split(key)
    count, height, width, _ = images.shape
    noise = jax.random.normal(where, (count, _BLOB, _BLOB, 1))
    field = jax.image.resize(noise, (count, height, width, 1), "cubic")
    shift = jnp.std(images) * jax.random.uniform(
        strength, (count, 1, 1, 1), minval=-2.5, maxval=2.5
    )
    opacity = jnp.clip(4 * (field - _STAIN) + 0.5, 0.0, 1.0)
    return jnp.clip(images + shift * opacity, -1.0, 1.0)
