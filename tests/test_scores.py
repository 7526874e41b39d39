import jax
import numpy as np
import pytest
from scipy import ndimage

from daad_jax import scores

RNG = np.random.default_rng(1)
X = RNG.uniform(-1, 1, (3, 8, 8, 2)).astype(np.float32)
Y = RNG.uniform(-1, 1, (3, 8, 8, 2)).astype(np.float32)


@pytest.mark.parametrize("score", [scores.reconstruction_score, scores.alignment_score])
def test_scores_are_means_of_squared_differences(score):
    np.testing.assert_allclose(jax.jit(score)(X, Y), ((X - Y) ** 2).mean((1, 2, 3)), rtol=1e-5)


def test_scale_takes_its_fit_to_zero_and_one_and_goes_on_beyond():
    scale = scores.fit_scale(np.array([2.0, 6.0, 3.0]))
    np.testing.assert_allclose(scale(np.array([2.0, 6.0, 8.0, 0.0])), [0, 1, 1.5, -0.5])
    np.testing.assert_allclose(scores.fit_scale(np.array([4.0]))(np.array([4.0, 5.0])), [0, 1])


def test_anomaly_score_fuses():
    rec, ali = np.array([0.0, 1.0, 0.5]), np.array([1.0, 0.0, 0.5])
    np.testing.assert_allclose(scores.anomaly_score(rec, ali, 0.9), 0.9 * rec + 0.1 * ali)
    np.testing.assert_array_equal(scores.anomaly_score(rec, None, 1.0), rec)
    with pytest.raises(ValueError, match="gamma"):
        scores.anomaly_score(rec, None, 0.9)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_anomaly_map_is_the_smoothed_channel_mean(sigma):
    result = jax.jit(scores.anomaly_map)(X, Y, scores.blur_matrix(8, sigma))
    error = ((X - Y) ** 2).mean(-1)
    expected = [ndimage.gaussian_filter(one, sigma, mode="reflect") for one in error]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
