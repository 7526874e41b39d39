"""The variants of the addressing comparison: an equal tuning budget for each rule.

``python -m benchmarks.addressing tune`` prints one variant a line, four for each rule;
``python -m benchmarks.addressing chosen FILE.jsonl [BEST]`` prints of a tuning's results the best
variant of each rule (or of the BEST rules only, always with `threshold`) by pseudo-defects of the
config's verdict score, then the controls. ``benchmarks/addressing.sh`` gives them to the grid.
"""

import itertools
import sys
from pathlib import Path

from daad_jax import grid_table

_COOL = ("memory.temperature=0.05", "memory.temperature=0.2")
_SIMILARITIES = ("memory.similarity=cosine", "memory.similarity=distance")
_ALL_TEMPERATURES = (("memory.temperature=0.02", "memory.temperature=1.0", *_COOL),)
# Two choices of two values each, or four temperatures where a rule has nothing of its own.
BUDGET: dict[str, tuple[tuple[str, ...], ...]] = {
    "softmax": _ALL_TEMPERATURES,
    "threshold": (_COOL, ("memory.cut=1.0", "memory.cut=2.0")),
    "threshold_renormalized": (_COOL, ("memory.cut=1.0", "memory.cut=2.0")),
    "hard_shrinkage": (_COOL, ("memory.cut=1.0", "memory.cut=3.0")),
    "top_k": (_COOL, ("memory.top_k=2", "memory.top_k=8")),
    "sparsemax": _ALL_TEMPERATURES,
    "entmax": (_COOL, ("memory.learned_alpha=False", "memory.learned_alpha=True")),
    # The second schedule ends within a few hundred steps, the first, as published, later.
    "gumbel": (_COOL, ("memory.gumbel_end=0.5", "memory.gumbel_end=0.1 memory.gumbel_rate=0.01")),
    "nearest": (
        _SIMILARITIES,
        # As published, and times loss.rec, which weighs the reconstruction 50 times.
        ("", "memory.codebook_weight=50.0 memory.commitment_weight=12.5"),
    ),
    "nearest_ema": (_SIMILARITIES, ("memory.ema_decay=0.99", "memory.ema_decay=0.9")),
    "hopfield": (_COOL, ("memory.retrieval_steps=2", "memory.retrieval_steps=4")),
    "product_key": (_COOL, ("memory.top_k=2", "memory.top_k=8")),
    "mnad": (_COOL, ("", "memory.compactness_weight=5.0 memory.separateness_weight=5.0")),
}
CONTROLS = (
    "memory.scales=none",
    "memory.frozen=True",
    "memory.addressing=mean",
)


def variants() -> list[str]:
    """Every rule's variants, in the grid's words."""
    return [
        " ".join(part for part in (f"memory.addressing={rule}", *choice) if part)
        for rule, choices in BUDGET.items()
        for choice in itertools.product(*choices)
    ]


def chosen(path: Path, best: int | None = None) -> list[str]:
    """The best variant of each rule by pseudo-defects, mean over what was tuned on; and controls.

    Args:
        path: the results of the tuning.
        best: how many rules, the best ones by the same figures; None for all. `threshold`, which
            all are compared with, is among them in any case.
    """
    figures: dict[str, list[float]] = {}
    for line in grid_table.latest(grid_table.read_lines(path)):
        if "evaluation" in line:
            scores = line["evaluation"]["pseudo"]["scores"]
            figures.setdefault(line["variant"], []).append(scores[line["evaluation"]["verdict"]])
    means = {variant: sum(values) / len(values) for variant, values in figures.items()}
    winners = {}
    for rule in BUDGET:
        own = [name for name in means if name.split()[0] == f"memory.addressing={rule}"]
        if own:
            winners[rule] = max(own, key=lambda name: means[name])
    ranked = sorted(winners, key=lambda rule: -means[winners[rule]])
    kept = ranked[:best]
    if "threshold" in winners and "threshold" not in kept:
        kept.append("threshold")
    return [winners[rule] for rule in kept] + list(CONTROLS)


def main(arguments: list[str]) -> None:
    """Prints what the module's docstring says."""
    if arguments == ["tune"]:
        found = variants()
    else:
        best = int(arguments[2]) if len(arguments) > 2 else None
        found = chosen(Path(arguments[1]), best)
    print("\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1:])
