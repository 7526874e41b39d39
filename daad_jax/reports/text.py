"""Tables for the terminal."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from daad_jax.errors import printable
from daad_jax.evaluation.baselines import best_baseline
from daad_jax.scoring.scores import SCORES, score_label


def evaluation_table(result: dict[str, Any]) -> str:
    """Renders an `Evaluation.summary`: each score, pixel AUROC, threshold and baselines."""
    title = (
        f"{printable(result['category'])} ({result['setting']}, step {result['step']}): "
        f"{result['test_good']} good and {result['test_defective']} defective test images"
    )
    graded = has_auroc(result)
    lines = [title, *([align(score_rows(result))] if graded else [])]
    if result["pixel_auroc"] is not None:
        relative = result["pixel_auroc_relative"]
        lines.append(
            f"anomaly map, at the masks' size: pixel AUROC {result['pixel_auroc']:.4f} (relative "
            f"to normal images {relative:.4f}), AP {result['pixel_average_precision']:.4f}, AUPRO "
            f"up to 30 % {result['aupro_30']:.4f}, up to 5 % {result['aupro_5']:.4f}"
        )
    if result["threshold"] is not None:
        label = score_label(result["decision"], "calibrated")
        lines.append(f"threshold of {label}: {result['threshold']:.4f}, {result['threshold_from']}")
    decision = result["decision"]
    kinds = ", ".join(
        f"{printable(kind)} {values[decision]:.3f}" for kind, values in result["by_kind"].items()
    )
    if kinds:
        lines.append(f"{score_label(decision, result['protocol'])} by kind of defect: {kinds}")
    if result["pseudo"] is not None:
        values = ", ".join(
            f"{score_label(name, 'calibrated')} {value:.2f}"
            for name, value in result["pseudo"]["scores"].items()
        )
        lines.append(f"pseudo-defects (no test image used): {values}")
    return "\n".join([*lines, *([align(control_rows(result))] if graded else [])])


def has_auroc(result: dict[str, Any]) -> bool:
    """Whether there were normal and defective test images, so that scores have metrics."""
    return any(result["scores"].values())


def score_rows(result: dict[str, Any]) -> list[list[str]]:
    """The cells of the table of scores: a header, and a row for each score."""
    rows = [["score", "image AUROC", "95 % interval", "AP", "best F1"]]
    for name, values in result["scores"].items():
        cells = [f"{values[key]:.4f}" for key in ("image_auroc", "average_precision", "best_f1")]
        rows.append([score_label(name, result["protocol"]), cells[0], interval(values), *cells[1:]])
    return rows


def threshold_of(result: dict[str, Any], name: str) -> float | None:
    """The threshold if it is that of the score `name`, else None.

    It is that of the calibrated A even if A itself follows the paper's protocol.
    """
    decision = result["decision"]
    cut = "A_calibrated" if decision == "A" and result["protocol"] != "calibrated" else decision
    return result["threshold"] if name == cut else None


def control_rows(result: dict[str, Any]) -> list[list[str]]:
    """The cells of the table of controls: a header, and a row for each control."""
    rows = [["control", "image AUROC", "turned around"]]
    for name, values in result["controls"].items():
        rows.append([name, f"{values['image_auroc']:.4f}", f"{values['turned_around']:.4f}"])
    return rows


def interval(values: dict[str, Any]) -> str:
    """The 95 % interval of a score's image AUROC."""
    low, high = values["image_auroc_interval"]
    return f"{low:.3f} to {high:.3f}"


def summary_table(results: Sequence[dict[str, Any]]) -> str:
    """Renders the image AUROCs of several categories, with a row for each and for the mean.

    The best control is the baseline with the highest AUROC, picked by the test labels.
    """
    return align(summary_rows(results))


def summary_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the cells of `summary_table`: a header, a row for each category, and the mean."""
    names = list(dict.fromkeys(name for result in results for name in headline_scores(result)))
    header = ["category", *(score_label(name, results[0]["protocol"]) for name in names)]
    rows = [[*header, "pixel", "best control"]]
    columns: list[list[float]] = []
    for result in results:
        pixel, controls = result["pixel_auroc"], result["controls"]
        control, value = best_baseline(controls) if controls else ("", np.nan)
        scores = [result["scores"].get(name, {}) for name in names]
        numbers = [score.get("image_auroc", np.nan) for score in scores]
        numbers += [np.nan if pixel is None else pixel, value]
        columns.append(numbers)
        cells = [_number(number) for number in numbers]
        best = f"{cells[-1]} ({control})" if control else cells[-1]
        rows.append([printable(result["category"]), *cells[:-1], best])
    rows.append(
        ["mean", *(_number(float(np.mean(column))) for column in zip(*columns, strict=True))]
    )
    return rows


def headline_scores(result: dict[str, Any]) -> list[str]:
    """The scores of short tables: the headline scores and the one that decides."""
    shown = {name for name, score in SCORES.items() if score.headline} | {result["decision"]}
    return [name for name in result["scores"] if name in shown]


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"


def align(rows: list[list[str]]) -> str:
    """Renders the cells of a table, a header first, with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])
