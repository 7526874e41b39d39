"""Whether thresholds keep their promise about good pictures, on a trained run.

``python -m benchmarks.false_alarms --workdir=WORKDIR`` scores the good pictures that the run was
not trained on: those held out for calibration and those of the test set. It divides all of them
1,000 times at random into halves, takes the threshold of each false-alarm rate from one half and
counts the false alarms in the other. It then takes the threshold from the held-out pictures and
counts the false alarms of the good test pictures, which may be from other parts or another time.
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

import daad_jax
from daad_jax.cli import guarded
from daad_jax.cli.flags import parse_flags
from daad_jax.errors import ConfigError
from daad_jax.runtime.files import user_path
from daad_jax.scoring import conformal

RATES = (0.01, 0.02, 0.05, 0.1, 0.2)


def main(argv: Sequence[str]) -> None:
    """Prints two Markdown tables."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of a trained run.", flag_values=values)
    flags.DEFINE_integer("splits", 1000, "Random divisions into halves.", flag_values=values)
    parse_flags(values, argv)
    if not values.workdir:
        raise ConfigError("--workdir: give the folder of a trained run")
    workdir = user_path(values.workdir)
    detector = daad_jax.load(workdir)
    config = detector.config
    dataset = daad_jax.load_dataset(config.data, config.data.category, workdir / "cache")
    good = dataset.test.images[dataset.test.labels == 0]
    held_out, test = (
        detector.score_prepared(images).decision_score
        for images in (dataset.calibration.images, good)
    )
    print(f"{config.score.decision}: {len(held_out)} held-out and {len(test)} good test pictures\n")
    print(pooled_table(np.concatenate([held_out, test]), values.splits))
    print(separate_table(np.sort(held_out), test))


def pooled_table(scores: np.ndarray, splits: int, seed: int = 0) -> str:
    """Asked for, promised and observed rates over random halves of good scores ``(n,)``.

    The first error is the standard error of the mean over the splits, the second the binomial
    error of one split.
    """
    rng, half = np.random.default_rng(seed), len(scores) // 2
    observed = np.zeros((splits, len(RATES)))
    for one in observed:
        mixed = rng.permutation(scores)
        good, new = np.sort(mixed[:half]), mixed[half:]
        one[:] = [np.mean(new >= conformal.rate_threshold(good, rate)) for rate in RATES]
    header = "asked for | promised | observed, mean | error of one split | 95 % of splits"
    lines = [f"| {header} |", "|---|---|---|---|---|"]
    for rate, column in zip(RATES, observed.T, strict=True):
        promised = max(np.floor(round(rate * (half + 1), 9)), 1) / (half + 1)
        error = np.sqrt(promised * (1 - promised) / (len(scores) - half))
        over_splits = column.std() / np.sqrt(splits)
        low, high = np.quantile(column, [0.025, 0.975])
        lines.append(
            f"| {rate:.0%} | {promised:.2%} | {column.mean():.2%} +- {over_splits:.2%} | "
            f"{error:.2%} | {low:.1%} to {high:.1%} |"
        )
    return "\n".join(lines) + "\n"


def separate_table(good: np.ndarray, test: np.ndarray) -> str:
    """Rates of the good test scores ``(m,)`` by thresholds of held-out scores, ascending."""
    lines = ["| asked for | promised | 95 % interval | observed on the test |", "|---|---|---|---|"]
    for rate in RATES:
        threshold = conformal.rate_threshold(good, rate)
        alarms = conformal.false_alarms(good, threshold)
        lines.append(
            f"| {rate:.0%} | {alarms.expected:.2%} | {alarms.low:.1%} to {alarms.high:.1%} | "
            f"{np.mean(test >= threshold):.2%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv)))
