"""What has been run so far, and how it compares with the paper."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from daad_jax import config as config_lib
from daad_jax.reports import grid_table
from daad_jax.reports.grid_table import Line
from daad_jax.reproduction.items import Run, Subject

NOT_RUN = "not run"
Values = Mapping[int, float]
"""A number of each seed."""


class Results(NamedTuple):
    """The finished and the failed runs of some items.

    Attributes:
        runs: all runs, finished or not.
        lines: the result of each finished run by subject, model and seed.
        errors: the message of each failed run.
        workdir: the folder that holds the folders of the runs.
    """

    runs: Sequence[Run]
    lines: Mapping[tuple[Subject, str, int], Line]
    errors: Mapping[tuple[Subject, str, int], str]
    workdir: Path

    def values(self, subject: Subject, model: str, score: str = "") -> dict[int, float]:
        """The image AUROC of a score by seed.

        Without `score` it is A, which is R without a discriminator, and of the package's default
        its decision score.
        """
        found = {}
        for seed, line in self.of(subject, model).items():
            evaluation = line["evaluation"]
            name = score or evaluation["decision"]
            if name in evaluation["scores"] and evaluation["scores"][name]:
                found[seed] = float(evaluation["scores"][name]["image_auroc"])
        return found

    def controls(self, subject: Subject, model: str, control: str) -> dict[int, float]:
        """The image AUROC of a control that needs no training, by seed."""
        found = {
            seed: line["evaluation"]["controls"].get(control)
            for seed, line in self.of(subject, model).items()
        }
        return {seed: one["image_auroc"] for seed, one in found.items() if one}

    def of(self, subject: Subject, model: str) -> dict[int, Line]:
        """The finished runs of a model by seed."""
        return {
            seed: line
            for (of, name, seed), line in self.lines.items()
            if (of, name) == (subject, model)
        }

    def plans(self, subject: Subject) -> bool:
        """Whether the subject is run at all: its images are at hand."""
        return any(run.subject == subject for run in self.runs)

    def folder(self, subject: Subject, model: str, seed: int) -> Path | None:
        """The folder of a finished run."""
        line = self.lines.get((subject, model, seed))
        return None if line is None else self.workdir / line["folder"]


def collect(runs: Sequence[Run], lines: Iterable[Line], workdir: Path) -> Results:
    """Finds the result of each run among the lines of a results file."""
    latest = {grid_table.config_key(line["config"]): line for line in lines}
    found, errors = {}, {}
    for run in runs:
        line = latest.get(grid_table.config_key(config_lib.to_dict(run.config)))
        key = run.subject, run.model, run.config.seed
        if line is not None and "evaluation" in line:
            found[key] = line
        elif line is not None:
            errors[key] = str(line["error"])
    return Results(runs, found, errors, workdir)


def complete(several: Sequence[Sequence[Values]]) -> list[Sequence[Values]]:
    """The numbers of the subjects, one of each model, that have all of them."""
    return [one for one in several if all(one)]


def mean(values: Values) -> float:
    """The mean over seeds."""
    return math.fsum(values.values()) / len(values)


def spread(values: Values) -> float | None:
    """The sample standard deviation over seeds, None for one seed."""
    return statistics.stdev(values.values()) if len(values) > 1 else None


def shown(values: Values) -> str:
    """A mean with its spread, such as "0.612 ± 0.010", or that there is none."""
    if not values:
        return NOT_RUN
    deviation = spread(values)
    return f"{mean(values):.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def mean_over(several: Sequence[Values]) -> dict[int, float]:
    """The mean over subjects for each seed that all of them have."""
    if not several:
        return {}
    seeds = set.intersection(*(set(values) for values in several))
    return {seed: math.fsum(one[seed] for one in several) / len(several) for seed in sorted(seeds)}


def difference(values: Values, printed: str | None) -> str:
    """Our mean minus the paper's number."""
    return f"{mean(values) - float(printed):+.3f}" if values and printed else ""


def verdict(values: Values, printed: str | None, missing: int = 0, of: str = "") -> str:
    """Compares our mean with the paper's number.

    It is "above" or "below" if they differ by more than our spread over seeds, else "within".
    `missing` is how many parts of the paper's mean are not there, and `of` names them, such as
    "of 15 categories".
    """
    if printed is None:
        return "not in the paper"
    if missing:
        return f"not comparable\n{missing} {of} missing"
    if not values:
        return NOT_RUN
    gap, deviation = mean(values) - float(printed), spread(values)
    side = "above" if gap > 0 else "below"
    if deviation is None:
        return f"{side}, one seed" if gap else "equal, one seed"
    return "within" if abs(gap) <= deviation else side
