import jax
import numpy as np
import pytest
from scipy import ndimage

import daad_jax
from daad_jax.errors import ConfigError
from daad_jax.scoring import scores
from tests.conftest import tiny_config

RNG = np.random.default_rng(1)
X = RNG.uniform(-1, 1, (3, 8, 8, 2)).astype(np.float32)
Y = RNG.uniform(-1, 1, (3, 8, 8, 2)).astype(np.float32)


def test_scores_are_means_of_squared_differences():
    expected = ((X - Y) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(jax.jit(scores.mean_squared)(X, Y), expected, rtol=1e-5)


def test_min_max_maps_its_range_to_0_and_1_and_extrapolates():
    scale = scores.MinMax(2.0, 6.0)
    np.testing.assert_allclose(scale(np.array([2.0, 6.0, 8.0, 0.0])), [0, 1, 1.5, -0.5])
    np.testing.assert_allclose(scores.MinMax(4.0, 4.0)(np.array([4.0, 5.0])), [0, 1])


def test_anomaly_score_fuses():
    rec, ali = np.array([0.0, 1.0, 0.5]), np.array([1.0, 0.0, 0.5])
    np.testing.assert_allclose(scores.anomaly_score(rec, ali, 0.9), 0.9 * rec + 0.1 * ali)
    np.testing.assert_array_equal(scores.anomaly_score(rec, None, 1.0), rec)
    with pytest.raises(ValueError, match="gamma"):
        scores.anomaly_score(rec, None, 0.9)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_anomaly_map_is_the_smoothed_channel_mean(sigma):
    result = jax.jit(scores.anomaly_map)(X, Y, (scores.blur_matrix(8, sigma),) * 2)
    error = ((X - Y) ** 2).mean(-1)
    expected = [ndimage.gaussian_filter(one, sigma, mode="reflect") for one in error]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)


def test_feature_map_is_the_channel_mean():
    np.testing.assert_allclose(
        jax.jit(scores.squared_map)(X, Y), ((X - Y) ** 2).mean(-1), rtol=1e-5, atol=1e-7
    )


def test_relative_maps_divide_by_what_is_normal_with_a_floor():
    normal = np.array([[1.0, 2.0], [5.0, 0.0]])
    maps = np.array([[[1.0, 1.0], [10.0, 0.02]]])
    expected = [[[1.0, 0.5], [2.0, 1.0]]]  # the floor is a hundredth of the mean, 0.02
    np.testing.assert_allclose(scores.relative_map(maps, normal), expected)
    still = scores.relative_map(np.zeros((1, 2, 2)), np.zeros((2, 2)))
    np.testing.assert_array_equal(still, np.zeros((1, 2, 2)))


def test_localised_scores_look_at_the_worst_place():
    maps = np.zeros((2, 10, 10), np.float32)
    maps[0, 3, 4], maps[1] = 9.0, np.arange(100).reshape(10, 10)
    np.testing.assert_array_equal(scores.map_maximum(maps), [9.0, 99.0])
    np.testing.assert_allclose(scores.map_quantile(maps, 0.5), [0.0, 49.5])
    np.testing.assert_allclose(scores.map_contrast(maps + 1), [10.0, 100 / 50.5])
    assert np.isfinite(scores.map_contrast(maps)).all()


def test_the_blur_asks_for_full_float32_products():
    text = jax.jit(scores.anomaly_map).lower(X, Y, (scores.blur_matrix(8, 1.0),) * 2).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("HIGHEST" in line for line in products)


def test_each_score_needs_only_what_is_known():
    for name, score in scores.SCORES.items():
        assert set(score.needs) <= set(scores.NEEDS), name
        assert score.sentence


def test_a_decision_by_the_discriminator_needs_one():
    with pytest.raises(ConfigError, match=r"score\.decision: 'L_max' needs a discriminator"):
        daad_jax.check(tiny_config("daad", score__decision="L_max"))
    with pytest.raises(ConfigError, match=r"'combined' needs held-out images; .* above 0"):
        daad_jax.check(tiny_config(score__decision="combined"))
    with pytest.raises(ConfigError, match="no score 'A_paper'"):
        daad_jax.check(tiny_config(score__decision="A_paper"))


def test_quantile_and_contrast_are_those_of_the_pixels_that_count():
    maps = RNG.random((3, 8, 8)).astype(np.float32)
    valid = RNG.random((3, 8, 8)) < 0.5
    hidden = np.where(valid, maps, 0.0)
    for index in range(3):
        counted = maps[index][valid[index]]
        found = scores.map_quantile(hidden, 0.3, valid)[index]
        np.testing.assert_allclose(found, np.quantile(counted, 0.3))
        contrast = scores.map_contrast(hidden, valid)[index]
        np.testing.assert_allclose(contrast, counted.max() / np.median(counted), rtol=1e-6)
