"""The variants of the addressing comparison: an equal tuning budget for each rule.

``python -m benchmarks.addressing tune`` prints one variant a line, four for each rule;
``python -m benchmarks.addressing chosen FILE.jsonl [BEST]`` prints of a tuning's results the best
variant of each rule (or of the BEST rules only, always with `threshold`) by pseudo-defects of the
config's decision score, then the controls. ``benchmarks/addressing.sh`` gives them to the grid.
``python -m benchmarks.addressing table FILE.jsonl SCORE SCALE`` prints a comparison's table.
"""

import itertools
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from daad_jax.reports import grid_table

_COOL = ("memory.temperature=0.05", "memory.temperature=0.2")
_SIMILARITIES = ("memory.similarity=cosine", "memory.similarity=distance")
_ALL_TEMPERATURES = (("memory.temperature=0.02", "memory.temperature=1.0", *_COOL),)
# The arguments of a rule, and values of another field: two choices of two values each, or four
# temperatures for a rule without arguments.
BUDGET: dict[str, tuple[tuple[str, ...], ...]] = {
    "softmax": (("",), *_ALL_TEMPERATURES),
    "threshold": (("cut=1.0", "cut=2.0"), _COOL),
    "threshold_renormalized": (("cut=1.0", "cut=2.0"), _COOL),
    "hard_shrinkage": (("cut=1.0", "cut=3.0"), _COOL),
    "top_k": (("k=2", "k=8"), _COOL),
    "sparsemax": (("",), *_ALL_TEMPERATURES),
    "entmax": (("", "learned=True"), _COOL),
    # The second schedule ends within a few hundred steps, the first (the default) later.
    "gumbel": (("", "end=0.1, rate=0.01"), _COOL),
    # As published, and times loss.rec, which weighs the reconstruction 50 times.
    "nearest": (("", "codebook_weight=50.0, commitment_weight=12.5"), _SIMILARITIES),
    "nearest_ema": (("decay=0.99", "decay=0.9"), _SIMILARITIES),
    "hopfield": (("steps=2", "steps=4"), _COOL),
    "product_key": (("k=2", "k=8"), _COOL),
    "mnad": (("", "compactness_weight=5.0, separateness_weight=5.0"), _COOL),
}
_DIAGNOSTICS = ("active_items", "effective_items", "never_read", "dead_reads", "cosine_mean")
CONTROLS = ("memory.scales=none", "memory.addressing=mean")


def variants() -> list[str]:
    """Every rule's variants, in the grid's words."""
    return [
        f"'memory.addressing={rule}({arguments})' {field}"
        for rule, choices in BUDGET.items()
        for arguments, field in itertools.product(*choices)
    ]


def chosen(path: Path, best: int | None = None) -> list[str]:
    """The best variant of each rule by pseudo-defects, mean over what was tuned on; and controls.

    The control with frozen random items is read as the best `threshold` is.

    Args:
        path: the results of the tuning.
        best: how many rules, the best ones by the same figures; None for all. `threshold`, which
            all are compared with, is among them in any case.
    """
    figures: dict[str, list[float]] = {}
    for line in grid_table.latest(grid_table.read_lines(path)):
        if "evaluation" in line:
            scores = line["evaluation"]["pseudo"]["scores"]
            figures.setdefault(line["variant"], []).append(scores[line["evaluation"]["decision"]])
    means = {variant: sum(values) / len(values) for variant, values in figures.items()}
    winners = {}
    for rule in BUDGET:
        own = [name for name in means if _rule(name) == rule]
        if own:
            winners[rule] = max(own, key=lambda name: means[name])
    ranked = sorted(winners, key=lambda rule: -means[winners[rule]])
    kept = ranked[:best]
    if "threshold" in winners and "threshold" not in kept:
        kept.append("threshold")
    frozen = f"memory.frozen=True {winners.get('threshold', '')}".strip()
    return [winners[rule] for rule in kept] + [*CONTROLS, frozen]


def table(path: Path, score: str, scale: str) -> str:
    """A comparison as Markdown, the rules in the order of their mean.

    Args:
        path: the results.
        score: whose image AUROC is compared.
        scale: the memory whose diagnostics are shown, ``scale_1`` for example.

    Returns:
        For each variant the AUROC on each category, mean and sample standard deviation over
        seeds, and on all; its differences to `threshold`, paired by category and seed, with their
        number; the diagnostics' means over all runs, ``dead_reads`` as a share; then PCA.
    """
    lines = grid_table.latest(grid_table.read_lines(path))
    lines = [line for line in lines if "evaluation" in line]
    categories = list(dict.fromkeys(line["category"] for line in lines))
    runs: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
    for line in lines:
        held = runs.setdefault(line["variant"], {})
        held[line["category"], line["seed"]] = _figures(line["evaluation"], score, scale)
    base = next(runs[name] for name in runs if _rule(name) == "threshold")
    means = {name: statistics.mean(_column(runs[name].values(), score)) for name in runs}
    head = ["", *categories, "mean", "Δ threshold (pairs)"]
    rows = [head + [name.replace("_", " ") for name in _DIAGNOSTICS]]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for name in sorted(runs, key=lambda name: -means[name]):
        held = runs[name]
        pairs = [held[key][score] - base[key][score] for key in held if key in base]
        row = [re.sub(r"memory\.|addressing=|\(\)|'", "", name)]
        for category in categories:
            of_category = [one for key, one in held.items() if key[0] == category]
            row.append(_spread(_column(of_category, score)))
        row += [
            f"{means[name]:.3f}",
            "-" if held is base else f"{_spread(pairs, '+')} ({len(pairs)})",
        ]
        rows.append(row + [_short(_column(held.values(), part)) for part in _DIAGNOSTICS])
    pca = {line["category"]: line["evaluation"]["controls"]["pca"]["image_auroc"] for line in lines}
    rows.append(["pca", *(f"{value:.3f}" for value in pca.values())])
    rows[-1] += [f"{statistics.mean(pca.values()):.3f}"] + ["-"] * (1 + len(_DIAGNOSTICS))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rule(variant: str) -> str | None:
    """The rule that a variant begins with, or None."""
    match = re.match(r"'?memory\.addressing=(\w+)", variant)
    return match and match[1]


def _figures(evaluation: dict[str, Any], score: str, scale: str) -> dict[str, float]:
    figures = {score: evaluation["scores"][score]["image_auroc"]}
    if scale in evaluation["memory"]:
        use = evaluation["memory"][scale]
        figures |= {name: use[name] for name in _DIAGNOSTICS}
        figures["dead_reads"] /= use["reads"]
    return figures


def _column(runs: Iterable[dict[str, float]], name: str) -> list[float]:
    return [run[name] for run in runs if name in run]


def _spread(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{sign}.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def _short(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3g}" if values else "-"


def main(arguments: list[str]) -> None:
    """Prints what the module's docstring says."""
    if arguments == ["tune"]:
        found = variants()
    elif arguments[0] == "table":
        found = [table(Path(arguments[1]), *arguments[2:])]
    else:
        best = int(arguments[2]) if len(arguments) > 2 else None
        found = chosen(Path(arguments[1]), best)
    print("\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1:])
