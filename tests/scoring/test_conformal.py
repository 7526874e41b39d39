"""The promise about good pictures, kept on simulated scores."""

import numpy as np
import pytest
from scipy import stats

from daad_jax.scoring import conformal


def sample(*shape, seed=0):
    return np.random.default_rng(seed).lognormal(size=shape)


def test_p_values_count_the_good_scores_that_are_as_high():
    good = np.array([1.0, 2.0, 2.0, 5.0])
    scores = np.array([0.0, 1.0, 1.5, 2.0, 5.0, 6.0])
    expected = [(1 + sum(one >= score for one in good)) / 5 for score in scores]
    np.testing.assert_array_equal(conformal.p_values(good, scores), expected)


@pytest.mark.parametrize("rate", [0.01, 0.07, 0.29, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("count", [1, 9, 30, 99, 100])
def test_a_score_reaches_the_threshold_of_a_rate_if_its_p_value_is_at_most_that_rate(count, rate):
    good = np.sort(np.round(sample(count), 1))  # with ties
    scores = np.concatenate([good, sample(200, seed=1), np.round(sample(200, seed=2), 1)])
    promised = max(rate, conformal.best_rate(count))
    expected = conformal.p_values(good, scores) <= promised + 1e-12
    np.testing.assert_array_equal(scores >= conformal.rate_threshold(good, rate), expected)


@pytest.mark.parametrize(("count", "rate"), [(30, 0.1), (70, 0.05), (99, 0.01), (150, 0.1)])
def test_the_promise_is_kept_on_simulated_good_pictures(count, rate):
    draws, new = 4000, 25
    scores = sample(draws, count + new, seed=3)
    alarms = 0
    for one in scores:
        alarms += np.sum(one[count:] >= conformal.rate_threshold(np.sort(one[:count]), rate))
    expected = np.floor(round(rate * (count + 1), 9)) / (count + 1)
    # The shares of the draws follow a Beta distribution, and the alarms of one are binomial.
    share = stats.beta(round(expected * (count + 1)), count + 1 - round(expected * (count + 1)))
    error = np.sqrt((share.var() + expected * (1 - expected) / new) / draws)
    observed = alarms / (draws * new)
    assert expected <= rate
    assert abs(observed - expected) < 4 * error


@pytest.mark.parametrize("count", [30, 100])
@pytest.mark.parametrize("quantile", [0.8, 0.99])
def test_the_interval_covers_the_true_share_of_false_alarms(count, quantile):
    good = np.sort(np.random.default_rng(4).random((2000, count)))  # the share above t is 1 - t
    for threshold in (
        lambda one: conformal.rate_threshold(one, 1 - quantile),
        lambda one: np.quantile(one, quantile),
        lambda one: quantile,
    ):
        covered = 0
        for one in good:
            found = conformal.false_alarms(one, threshold(one))
            covered += found.low <= 1 - threshold(one) <= found.high
        assert covered / len(good) >= conformal.CONFIDENCE - 4 * np.sqrt(0.05 * 0.95 / len(good))


def test_false_alarms_at_the_ends():
    good = np.arange(30.0)
    assert conformal.false_alarms(good, -1.0) == (1.0, pytest.approx(0.884, abs=1e-3), 1.0)
    none = conformal.false_alarms(good, 99.0)
    assert (none.expected, none.low) == (pytest.approx(1 / 31), 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 30))


def test_the_relative_score_is_linear_and_never_cut_off():
    good = np.array([1.0, 2.0, 4.0])
    scores = np.array([-1e9, 2.0, 6.0, 1e9])
    found = conformal.relative_score(good, 6.0, scores)
    np.testing.assert_allclose(found, (scores - 2) / 4)
    assert (np.diff(conformal.relative_score(good, 0.0, scores)) > 0).all()  # below the median
    assert (np.diff(conformal.relative_score(good[:1], 0.0, scores)) > 0).all()


def test_percent():
    shares = [0, 0.00036, 0.01, 0.0323, 0.1, 0.9967, 1]
    texts = ["0 %", "0.036 %", "1 %", "3.2 %", "10 %", "100 %", "100 %"]
    assert [conformal.percent(share) for share in shares] == texts
