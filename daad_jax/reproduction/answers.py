"""The paper's four claims, each with what our runs say."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from daad_jax.errors import DataError, warn
from daad_jax.evaluation.evaluate import SCORES_FILE
from daad_jax.reports.document import Block, Items, Table
from daad_jax.reproduction import paper
from daad_jax.reproduction.figures import read_scores
from daad_jax.reproduction.items import Subject
from daad_jax.reproduction.results import Results, Values, complete, mean, mean_over
from daad_jax.reproduction.scales import RATES, TITLES

YES, NO, OPEN, NONE = "yes", "no", "undecided", "not run"
_EACH = "Each category counts once, with its mean over seeds; ± is a 95 % interval (Student's t)."


def rebuilding(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """Does finer division rebuild better? The mean R of good and of defective test pictures."""
    rows, errors = [], {}
    for subject in subjects:
        for rate in RATES:
            found = _errors(results, subject, f"daad_r{rate}")
            if found:
                errors[subject, rate] = found
                good, bad = np.mean(found, axis=0)
                cells = [f"{good:.4f}", f"{bad:.4f}", f"{bad / good:.2f}"]
                rows.append([f"{subject.category}, r = {rate}", *cells])
    answer = _falls({key: float(np.mean(found, axis=0)[0]) for key, found in errors.items()})
    text = (
        f"**Does finer division rebuild better? Here: {answer}.** The paper: yes, the larger the "
        "division rate, the clearer the reconstruction, of defects too. Mean R of test pictures:"
    )
    table = Table(["category and rate", "good", "defective", "defective / good"], rows)
    return [text, *([table] if rows else [])]


def best_rate(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """Is there a best rate in the middle? By the AUROC of R: the best inner rate and both ends."""
    printed = paper.numbers()["table4"]
    each = complete([[results.values(one, f"daad_r{r}") for r in RATES] for one in subjects])
    ours = {
        rate: values
        for place, rate in enumerate(RATES)
        if (values := mean_over([one[place] for one in each]))
    }
    answer = NONE if len(ours) < len(RATES) else _in_the_middle(each)
    best = max(ours, key=lambda rate: mean(ours[rate]), default=None)
    best_text = "" if best is None else f" The best here is r = {best}."
    line = ", ".join(f"r = {rate}: {mean(values):.3f}" for rate, values in ours.items())
    theirs = ", ".join(f"r = {rate}: {auroc}" for rate, auroc in printed.items())
    return [
        f"**Is there a best rate in the middle? Here: {answer}.**{best_text} "
        f"The paper: yes, r = 8. It has to differ from r = 1 and from r = 16. {_EACH}",
        Items([f"paper (mean of 15): {theirs}", f"ours: {line or NONE}"]),
    ]


def memory(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """Does the memory beat no memory? By the difference of DAAD and AE."""
    pairs = [("daad", "ae"), ("daad", "ae_skip"), ("memae", "ae"), ("daad", "memae")]
    return _paired(results, subjects, "Does the memory beat no memory?", pairs)


def plus(results: Results, subjects: Sequence[Subject]) -> list[Block]:
    """Does DAAD+ beat DAAD? By the difference of A and R."""
    return _paired(results, subjects, "Does DAAD+ beat DAAD?", [("daad_plus", "daad")])


def _paired(
    results: Results, subjects: Sequence[Subject], question: str, pairs: Sequence[tuple[str, str]]
) -> list[Block]:
    """An answer by the first pair of models, and the differences of all pairs."""
    rows, answers = [], []
    for better, worse in pairs:
        gaps = {
            one.category: statistics.fmean(gap.values())
            for one in subjects
            if (gap := _gaps(results, one, better, worse))
        }
        printed = [paper.table3(paper.MEAN, model) for model in (better, worse)]
        claim = f"{float(printed[0] or 0) - float(printed[1] or 0):+.3f}"
        each = ", ".join(f"{name} {gap:+.3f}" for name, gap in gaps.items())
        answers.append(_decided(list(gaps.values())))
        title = f"{TITLES[better]} - {TITLES[worse]}"
        rows.append([title, claim, _interval(list(gaps.values())), answers[-1], each])
    header = ["difference of AUROC", "paper, mean of 15", "ours", "better", "by category"]
    text = f"**{question} Here: {answers[0]}.** The paper: yes, by {rows[0][1]}. {_EACH}"
    return [text, Table(header, rows)]


def _gaps(results: Results, subject: Subject, better: str, worse: str) -> dict[int, float]:
    """The difference of two models for each seed that both have."""
    first, second = results.values(subject, better), results.values(subject, worse)
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def _interval(gaps: Sequence[float]) -> str:
    if not gaps:
        return NONE
    middle = f"{statistics.fmean(gaps):+.3f}"
    return middle if len(gaps) == 1 else f"{middle} ± {_half_width(gaps):.3f}"


def _decided(gaps: Sequence[float]) -> str:
    """Whether the 95 % interval of a mean difference is above zero, below it, or holds it."""
    if len(gaps) < 2:
        return OPEN if gaps else NONE
    middle, error = statistics.fmean(gaps), _half_width(gaps)
    return OPEN if abs(middle) <= error else YES if middle > 0 else NO


def _half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean of at least two values."""
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def _in_the_middle(each: Sequence[Sequence[Values]]) -> str:
    """Whether the best inner rate is above both ends. `each` has a category's values by rate."""
    columns = list(zip(*([mean(values) for values in one] for one in each), strict=True))
    best = max(columns[1:-1], key=statistics.fmean)
    answers = [
        _decided([inner - end for inner, end in zip(best, column, strict=True)])
        for column in (columns[0], columns[-1])
    ]
    return YES if answers == [YES, YES] else NO if NO in answers else OPEN


def _errors(results: Results, subject: Subject, model: str) -> list[tuple[float, float]]:
    """Mean R of the good and of the defective test pictures of each run."""
    found = []
    for seed in results.of(subject, model):
        folder = results.folder(subject, model, seed)
        if folder is None or not (folder / SCORES_FILE).is_file():
            continue
        try:
            scores = read_scores(folder)
        except DataError as error:
            warn(str(error))
            continue
        good, bad = (scores["R"][scores["label"] == label].mean() for label in (0, 1))
        found.append((float(good), float(bad)))
    return found


def _falls(errors: Mapping[tuple[Subject, int], float]) -> str:
    """Whether the error falls from each rate to the next in every category."""
    steps = [
        errors[subject, finer] < errors[subject, rate]
        for subject, rate in errors
        for finer in [2 * rate]
        if (subject, finer) in errors
    ]
    if not steps:
        return NONE
    return YES if all(steps) else f"{sum(steps)} of {len(steps)} steps to the next rate do"
