"""Tables for the terminal."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from daad_jax import controls
from daad_jax.errors import printable

MAIN_SCORES = ("R", "L", "A", "A_paper", "A_calibrated", "R_max_relative", "R_contrast_relative")


def evaluation_table(result: dict[str, Any]) -> str:
    """A category's evaluation as text: each score, pixel AUROC, and the controls.

    Args:
        result: the summary of a `daad_jax.evaluation.Evaluation`.
    """
    title = (
        f"{printable(result['category'])} ({result['setting']}, step {result['step']}): "
        f"{result['test_good']} good and {result['test_defective']} defective test images"
    )
    rows = [["score", "image AUROC", "95 % interval", "AP", "best F1"]]
    for name, values in result["scores"].items():
        low, high = values["image_auroc_interval"]
        rows.append(
            [
                score_label(name, result["protocol"]),
                f"{values['image_auroc']:.4f}",
                f"{low:.3f} to {high:.3f}",
                f"{values['average_precision']:.4f}",
                f"{values['best_f1']:.4f}",
            ]
        )
    lines = [title, _align(rows)]
    if result["pixel_auroc"] is not None:
        relative = result["pixel_auroc_relative"]
        lines.append(
            f"pixel AUROC of the anomaly map: {result['pixel_auroc']:.4f}, relative to normal "
            f"images: {relative:.4f}"
        )
    if result["threshold"] is not None:
        verdict = score_label(result["verdict"], "calibrated")
        lines.append(f"threshold of {verdict}: {result['threshold']:.4f}")
    verdict = result["verdict"]
    kinds = ", ".join(
        f"{printable(kind)} {values[verdict]:.3f}" for kind, values in result["by_kind"].items()
    )
    lines.append(f"{score_label(verdict, result['protocol'])} by kind of defect: {kinds}")
    if result["pseudo"] is not None:
        values = ", ".join(
            f"{name.replace('_', ' ')} {value:.2f}"
            for name, value in result["pseudo"]["scores"].items()
        )
        lines.append(f"pseudo-defects (no test image used): {values}")
    control_rows = [["control", "image AUROC", "turned around"]]
    for name, values in result["controls"].items():
        control_rows.append(
            [name, f"{values['image_auroc']:.4f}", f"{values['turned_around']:.4f}"]
        )
    return "\n".join([*lines, _align(control_rows)])


def summary_table(results: Sequence[dict[str, Any]]) -> str:
    """All categories in one table, a row each and the mean; image AUROCs.

    The best control is picked among all controls and directions by the test labels themselves.
    """
    return _align(summary_rows(results))


def summary_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The cells of `summary_table`: a header, a row for each category, and the mean."""
    shown = {*MAIN_SCORES, results[0]["verdict"]}
    names = [name for name in results[0]["scores"] if name in shown]
    header = ["category", *(score_label(name, results[0]["protocol"]) for name in names)]
    rows = [[*header, "pixel", "best control"]]
    columns: list[list[float]] = []
    for result in results:
        control, value = controls.best_control(result["controls"])
        pixel = result["pixel_auroc"]
        numbers = [result["scores"][name]["image_auroc"] for name in names]
        numbers += [np.nan if pixel is None else pixel, value]
        columns.append(numbers)
        cells = [_number(number) for number in numbers]
        rows.append([printable(result["category"]), *cells[:-1], f"{cells[-1]} ({control})"])
    rows.append(
        ["mean", *(_number(float(np.mean(column))) for column in zip(*columns, strict=True))]
    )
    return rows


def score_label(name: str, protocol: str) -> str:
    """A score's name in a table: that of A says under which protocol."""
    if name == "A":
        return f"A ({protocol})"
    if name.startswith("A_"):
        return f"A ({name[2:]})"
    return name.replace("_", " ")


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])
