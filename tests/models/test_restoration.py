"""Corruptions of the generator's input and restorations of clean images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax.models.restoration import corrupt, restorations

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(-0.9, 0.9, (12, 16, 16, 3)), jnp.float32)


def changed(kind):
    made = np.asarray(jax.jit(corrupt, static_argnums=0)(kind, KEY, IMAGES))
    assert made.shape == IMAGES.shape
    return made


def test_none_changes_nothing():
    np.testing.assert_array_equal(changed("none"), IMAGES)


def test_rotate_turns_each_image_by_itself():
    turns = []
    for image, made in zip(np.asarray(IMAGES), changed("rotate"), strict=True):
        (turn,) = (k for k in range(4) if (np.rot90(image, k) == made).all())
        turns.append(turn)
    assert len(set(turns)) > 2


def test_grey_is_the_mean_of_the_channels():
    expected = np.repeat(np.asarray(IMAGES).mean(-1, keepdims=True), 3, -1)
    np.testing.assert_allclose(changed("grey"), expected, atol=1e-6)


def test_inpaint_masks_a_quarter_of_the_cells():
    masked = (changed("inpaint") == 0).all(-1)
    assert (masked.mean((1, 2)) == 0.25).all()
    cells = masked.reshape(12, 8, 2, 8, 2)
    assert (cells.all((2, 4)) == cells.any((2, 4))).all()
    assert not (masked[0] == masked[1]).all()


def test_stains_cover_a_small_part_and_stay_in_the_range():
    made = changed("stain")
    touched = (made != np.asarray(IMAGES)).any(-1)
    assert 0 < touched.mean() < 0.2
    assert touched.any((1, 2)).mean() > 0.5
    assert np.abs(made).max() <= 1


@pytest.mark.parametrize("kind", ["none", "grey", "stain"])
def test_most_corruptions_are_restored_once(kind):
    (seen,) = restorations(kind, lambda x: x, IMAGES)
    np.testing.assert_allclose(seen, changed("grey") if kind == "grey" else IMAGES, atol=1e-6)


def test_all_four_turns_are_restored():
    seen = restorations("rotate", lambda x: x, IMAGES)
    for turn, one in enumerate(seen):
        np.testing.assert_array_equal(one, np.rot90(IMAGES, turn, (1, 2)))
    assert len(seen) == 4


def test_inpainting_rebuilds_each_pixel_from_others():
    (copied,) = restorations("inpaint", lambda x: x, IMAGES)
    np.testing.assert_array_equal(copied, 0.0)
    (constant,) = restorations("inpaint", lambda x: x + 0.5, IMAGES)
    np.testing.assert_array_equal(constant, 0.5)
