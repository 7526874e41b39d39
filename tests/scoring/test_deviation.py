"""Deviations of scores from those of good images with the same light."""

import numpy as np
import pytest
from scipy.stats import combine_pvalues, norm

from daad_jax.config import ScoreConfig
from daad_jax.scoring import calibration
from daad_jax.scoring.deviation import fit_deviation, image_light
from daad_jax.scoring.scores import RawScores, compute_scores

RNG = np.random.default_rng(0)


def test_light_is_the_logarithm_of_mean_and_standard_deviation():
    images = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    mean, spread = images.mean((1, 2, 3)), images.std((1, 2, 3))
    np.testing.assert_allclose(np.exp(image_light(images)), np.stack([mean + 1, spread + 1], 1))
    assert np.isfinite(image_light(np.zeros((2, 4, 4, 1), np.uint8))).all()


def test_what_light_explains_is_taken_out():
    light = RNG.normal(5, 1, (500, 2))
    noise = RNG.normal(0, 0.1, 500)
    values = np.exp(1 + 2 * light[:, 0] - light[:, 1] + noise)
    model = fit_deviation(values, light)
    np.testing.assert_allclose(model(values, light), noise / 0.1, atol=0.4)
    assert np.std(model(values, light)) == pytest.approx(1, abs=0.01)
    # An image that is brighter than all good ones is compared with the brightest of them.
    bright = np.array([[light[:, 0].max() + 50, light[:, 1].min()]])
    capped = np.array([[light[:, 0].max(), light[:, 1].min()]])
    assert model(values[:1], bright) == model(values[:1], capped)


def test_a_few_images_give_flat_slopes_and_a_finite_score():
    for count in (1, 2, 3):
        light = RNG.normal(5, 1, (count, 2))
        model = fit_deviation(np.exp(RNG.normal(size=count)), light)
        assert np.abs(model.slopes).max() < 1
        assert np.isfinite(model(np.array([0.0, 1.0, 1e9]), np.ones((3, 2)))).all()


def test_the_combined_score_joins_p_values_by_fishers_method():
    count = 40
    maps = RNG.random((count, 4, 4)).astype(np.float32)
    raw = RawScores(RNG.random(count), RNG.random(count), maps, maps, maps, RNG.random((count, 2)))
    reference = calibration.fit_reference(raw, 7)
    settings = ScoreConfig(decision="combined", threshold_quantile=0.5)
    made = calibration.calibrate(raw, 7, settings, reference)
    inputs = calibration.calibrated_inputs(raw, settings, made, reference)
    scores = compute_scores(inputs)
    names = ("R", "R_max_relative", "R_quantile_relative", "R_contrast_relative", "L")
    assert made.deviations.keys() == set(names)
    each = [fit_deviation(scores[name], raw.light)(scores[name], raw.light) for name in names]
    combined = [combine_pvalues(one, "fisher").statistic / 2 for one in norm.sf(each).T]
    np.testing.assert_allclose(scores["combined"], combined)
    np.testing.assert_allclose(scores["R_deviation"], each[0])
    without = raw._replace(alignment_score=None, feature_map=None)
    made = calibration.calibrate(without, 7, settings, reference)
    assert made.deviations.keys() == set(names[:4])
