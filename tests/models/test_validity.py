"""Means over the pixels that count, against NumPy."""

import jax
import numpy as np
import pytest

from daad_jax.models.validity import cell_shares, count_only

RNG = np.random.default_rng(0)
VALID = (RNG.random((2, 12, 16, 1)) < 0.7).astype(np.float32)


def test_the_mean_is_that_of_the_pixels_that_count():
    errors = RNG.random((2, 12, 16, 3)).astype(np.float32)
    means = jax.jit(count_only)(errors, VALID).mean(axis=(1, 2, 3))
    for mean, error, valid in zip(means, errors, VALID, strict=True):
        np.testing.assert_allclose(mean, error[valid[..., 0] > 0].mean(), rtol=1e-5)


def test_without_validity_nothing_is_done_and_with_nothing_valid_all_is_zero():
    errors = RNG.random((2, 3, 4, 1)).astype(np.float32)
    assert count_only(errors, None) is errors
    np.testing.assert_array_equal(count_only(errors, np.zeros((2, 3, 4, 1), np.float32)), 0)


@pytest.mark.parametrize("size", [(6, 4), (5, 7), (12, 16), (1, 1)])
def test_the_share_of_a_cell_is_the_mean_of_its_pixels(size):
    shares = np.asarray(cell_shares(VALID, size))
    fine = VALID.repeat(size[0], axis=1).repeat(size[1], axis=2)
    expected = fine.reshape(2, size[0], 12, size[1], 16).mean(axis=(2, 4))
    np.testing.assert_allclose(shares[..., 0], expected, rtol=1e-5)
