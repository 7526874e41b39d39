"""The threshold of a calibration: what it was made from, and how it changes."""

import numpy as np
import pytest

from daad_jax.config import ScoreConfig
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring import conformal
from daad_jax.scoring.scores import RawScores, Reference

SETTINGS = ScoreConfig(decision="R", threshold_quantile=0.9)


def raw_scores(count, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    maps = (scale * rng.random((count, 4, 6))).astype(np.float32)
    empty = np.zeros((count, 0), np.float32)
    return RawScores(
        maps.mean((1, 2)).astype(float), None, maps, None, empty, rng.random((count, 2))
    )


@pytest.fixture
def made():
    return calibration_lib.calibrate(raw_scores(30), 7, SETTINGS, None)


def test_the_good_scores_are_kept_with_the_calibration(made, tmp_path):
    raw = raw_scores(30)
    assert made.good_scores == tuple(sorted(raw.reconstruction_score))
    assert made.good_maxima == tuple(sorted(raw.anomaly_map.max((1, 2)).astype(float)))
    assert made.threshold == np.quantile(raw.reconstruction_score, 0.9)
    assert made.origin.is_default
    calibration_lib.save_calibration(tmp_path, made)
    loaded = calibration_lib.load_calibration(tmp_path, 7, SETTINGS)
    assert loaded._replace(deviations={}) == made._replace(deviations={})
    assert calibration_lib.load_chosen(tmp_path, 7, SETTINGS) is None


def test_a_rate_gives_the_conformal_threshold(made, capsys):
    chosen = calibration_lib.with_rate(made, 0.1)  # three of 31
    assert chosen.threshold == np.nextafter(made.good_scores[-3], np.inf)
    assert capsys.readouterr().err == ""
    assert chosen.describe() == (
        "a false-alarm rate of 10 % on 30 held-out good pictures: at most 9.7 % false alarms "
        "expected, 95 % interval 0.82 % to 22 %"
    )


def test_too_few_pictures_for_a_rate_are_told(made, capsys):
    chosen = calibration_lib.with_rate(made, 0.01)
    assert chosen.threshold > made.good_scores[-1]
    assert capsys.readouterr().err == (
        "warning: 30 pictures cannot promise 1 %: at best 3.2 %; calibrate on at least 99 good "
        "ones\n"
    )
    enough = made._replace(good_scores=tuple(map(float, range(99))))
    calibration_lib.with_rate(enough, 0.01)
    assert capsys.readouterr().err == ""


def test_a_chosen_threshold_is_stored_for_its_step_and_settings(made, tmp_path):
    chosen = calibration_lib.with_threshold(made, 0.75)
    calibration_lib.save_calibration(tmp_path, chosen)
    loaded = calibration_lib.load_chosen(tmp_path, 7, SETTINGS)
    assert loaded._replace(deviations={}) == chosen._replace(deviations={})
    assert calibration_lib.load_chosen(tmp_path, 8, SETTINGS) is None
    other = ScoreConfig(decision="R", threshold_quantile=0.5)
    assert calibration_lib.load_chosen(tmp_path, 7, other) is None
    (tmp_path / "calibration.json").write_text("{")
    assert calibration_lib.load_chosen(tmp_path, 7, SETTINGS) is None


def test_new_good_pictures_change_the_threshold_and_not_the_score(made):
    new = raw_scores(50, scale=3.0, seed=1)
    chosen = calibration_lib.recalibrate(made, new, SETTINGS, None)
    assert (chosen.scales, chosen.deviations) == (made.scales, made.deviations)
    assert chosen.threshold == np.quantile(new.reconstruction_score, 0.9)
    assert chosen.describe().startswith("the 0.9 quantile of 50 new good pictures: at most 12 %")
    rated = calibration_lib.with_rate(made, 0.2)
    kept = calibration_lib.recalibrate(rated, new, SETTINGS, None)
    assert (kept.origin.kind, kept.origin.value, kept.origin.good) == ("rate", 0.2, "new")


def test_a_fitted_threshold_says_so(made):
    fitted = calibration_lib.with_best_f1(made, 0.6, 0.875, 40)
    told = "the best F1 (0.875) on 40 labelled test pictures, fitted on them; on 30 held-out good"
    assert fitted.describe().startswith(told)


def test_as_many_good_maps_exceed_the_pixel_threshold_as_pictures_reach_the_threshold(made):
    for rate in (0.02, 0.1, 0.5, 0.95):
        chosen = calibration_lib.with_rate(made, rate)
        reaching = sum(score >= chosen.threshold for score in chosen.good_scores)
        assert sum(top > chosen.pixel_threshold for top in chosen.good_maxima) == reaching
    everything = calibration_lib.with_threshold(made, -1.0)
    assert everything.pixel_threshold == made.good_maxima[0]


def test_judging_scores(made):
    chosen = calibration_lib.with_threshold(made, 0.7)
    relative, p_value, defective = calibration_lib.judge(chosen, np.array([0.1, 0.7, 0.9]))
    np.testing.assert_array_equal(defective, [False, True, True])
    assert relative[1] == 1.0
    assert relative[0] < 0 < 1 < relative[2]
    np.testing.assert_allclose(p_value, [1.0, 1 / 31, 1 / 31])


def test_the_promise_holds_for_a_score_that_is_fitted_to_the_good_pictures():
    """Scores of few images that the deviations are fitted to are lower than those of new ones."""
    settings, count, new, rate = ScoreConfig(decision="combined"), 10, 40, 2 / 11
    rng, alarms, too_many = np.random.default_rng(2), [], []
    reference = Reference(7, np.ones((4, 6), np.float32), None)
    for _ in range(100):
        light = rng.normal(5, 1, (count + new, 2))
        maps = np.exp(light @ [[0.3], [0.3]] + rng.normal(0, 0.3, (count + new, 24)))
        maps = maps.reshape(-1, 4, 6).astype(np.float32)
        raw = RawScores(maps.mean((1, 2)).astype(float), None, maps, None, maps, light)
        good, other = (
            RawScores(*(None if one is None else one[part] for one in raw))
            for part in (slice(count), slice(count, None))
        )
        made = calibration_lib.calibrate(good, 7, settings, reference)
        scores = calibration_lib.decision_score(other, settings, made, reference)
        alarms.append(np.mean(scores >= calibration_lib.with_rate(made, rate).threshold))
        seen = np.sort(calibration_lib.decision_score(good, settings, made, reference))
        too_many.append(np.mean(scores >= conformal.rate_threshold(seen, rate)))
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) < rate + 3 * error
    assert np.mean(too_many) > rate + 3 * error
