"""What the scores of held-out good pictures promise about the next good picture.

A picture is called defective if its score is at or above a threshold. If a new good picture and
the n held-out ones are exchangeable (drawn alike and independently, for example), every rank of its
score among theirs is equally likely, whatever the scores are. This gives exact p-values and
thresholds (conformal prediction, Vovk et al. 2005; for outliers Bates et al. 2023).

The good scores of all functions are float64 ``(n,)``, ascending, n >= 1. `p_values` and
`relative_score` also take JAX arrays.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class FalseAlarms(NamedTuple):
    """The share of good pictures that a threshold calls defective.

    `expected` is the mean of that share over draws of the n held-out pictures, or a bound of it:
    (k + 1) / (n + 1) for k held-out pictures at or above the threshold. `low` and `high` are the
    exact 95 % interval of the share for these very pictures (Clopper-Pearson).
    """

    expected: float
    low: float
    high: float


def p_values(good: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Conformal p-values of scores ``(m,)``, float64 ``(m,)`` in [1 / (n + 1), 1].

    It is one plus the number of good scores that are at least as high, over n + 1. A good picture
    has a p-value of at most q with a probability of at most q.
    """
    return (1.0 + _reaching(good, scores).astype(np.float64)) / (len(good) + 1)


def best_rate(count: int) -> float:
    """The lowest false-alarm rate that `count` good pictures can promise."""
    return 1 / (count + 1)


def rate_threshold(good: np.ndarray, rate: float) -> float:
    """The lowest threshold whose expected false-alarm rate is at most `rate`, in (0, 1).

    A score reaches it exactly if its p-value is at most `rate`. If `rate` is below `best_rate` it
    is just above the highest good score, which promises `best_rate`.
    """
    allowed = max(math.floor(round(rate * (len(good) + 1), 9)) - 1, 0)
    return float(np.nextafter(good[-1 - allowed], np.inf))


def false_alarms(good: np.ndarray, threshold: float) -> FalseAlarms:
    """What is known about the false alarms of a threshold.

    The interval also holds for a threshold between two neighbouring good scores, such as one of
    their quantiles: the shares at the n good scores themselves follow Beta distributions.
    """
    count, reaching = len(good), int(_reaching(good, np.array([threshold]))[0])
    tail = (1 - CONFIDENCE) / 2
    low = stats.beta.ppf(tail, reaching, count - reaching + 1) if reaching else 0.0
    high = stats.beta.ppf(1 - tail, reaching + 1, count - reaching) if reaching < count else 1.0
    return FalseAlarms((reaching + 1) / (count + 1), float(low), float(high))


def relative_score(good: np.ndarray, threshold: float, scores: np.ndarray) -> np.ndarray:
    """Scores on a scale where the median good picture has 0 and the threshold 1.

    It is linear, so it keeps every order and nothing is cut off. If the threshold is not above the
    median, the highest good score has 1 instead. Returns float64 ``(m,)``.
    """
    middle = float(np.median(good))
    unit = threshold - middle if threshold > middle else float(good[-1]) - middle
    return (scores - middle) / (unit if unit > 0 else 1.0)


def percent(share: float) -> str:
    """A share as text, such as "3.2 %"."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _reaching(good: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The number of good scores that are at least as high as each score."""
    xp = scores.__array_namespace__()
    return len(good) - xp.searchsorted(xp.asarray(good), scores, side="left")
