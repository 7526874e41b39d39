"""The report's section on detection: tables of scores and controls, ROC curve and histograms."""

from typing import Any

from daad_jax.config import Config
from daad_jax.data import ImageSet
from daad_jax.evaluation.evaluate import Evaluation
from daad_jax.reports import page, plots, text
from daad_jax.reports.page import Html, element
from daad_jax.scoring.scores import SCORES, score_label

_PSEUDO = (
    " Pseudo-defects: image AUROC of held-out normal images against artificial defects. No test "
    "image is used."
)


def section(evaluation: Evaluation, test: ImageSet) -> Html:
    """Renders the section."""
    summary = evaluation.summary
    if not text.has_auroc(summary):
        return page.section("Detection", _ungraded(summary))
    return page.section(
        "Detection",
        _score_table(summary, evaluation.config),
        _kind_table(summary, test),
        _control_table(summary),
        element("h3", "Curves and histograms"),
        page.group("columns", _figures(evaluation, test)),
    )


def _ungraded(summary: dict[str, Any]) -> Html:
    """What is known without normal and defective test images."""
    note = "There is no AUROC: it needs normal and defective test images."
    if summary["threshold"] is not None:
        note += f" {_threshold(summary)}"
    if summary["pseudo"] is None:
        return page.note(note)
    scores = summary["pseudo"]["scores"]
    rows = [[score_label(name, "calibrated"), f"{scores[name]:.4f}"] for name in scores]
    return page.join([page.table(["score", "pseudo-defects"], rows), page.note(note + _PSEUDO)])


def _threshold(summary: dict[str, Any]) -> str:
    label = score_label(summary["decision"], "calibrated")
    return (
        f"An image with {label} at or above {summary['threshold']:.4f} is defective; the threshold "
        f"is from {summary['threshold_from']}."
    )


def _figures(evaluation: Evaluation, test: ImageSet) -> list[Html]:
    summary, config = evaluation.summary, evaluation.config
    decision, protocol = summary["decision"], summary["protocol"]
    label = score_label(decision, protocol)
    curve = plots.roc_figure(
        test.labels,
        evaluation.scores[decision],
        name=label,
        samples=config.score.bootstrap_samples,
        seed=config.seed,
    )
    figures = [page.plot(curve, f"ROC curve of {label}. The band is the 95 % bootstrap interval.")]
    for name in dict.fromkeys([decision, *text.headline_scores(summary)]):
        label = score_label(name, protocol)
        drawn = plots.score_histogram(
            test.labels,
            evaluation.scores[name],
            name=label,
            threshold=text.threshold_of(summary, name),
        )
        figures.append(page.plot(drawn, f"{label} of good and of defective test images."))
    return figures


def _score_table(summary: dict[str, Any], config: Config) -> Html:
    pseudo = {} if summary["pseudo"] is None else summary["pseudo"]["scores"]
    header, *rows = text.score_rows(summary)
    for row, name in zip(rows, summary["scores"], strict=True):
        row[0] = page.join([page.escape(row[0]), element("span", SCORES[name].sentence)])
        if pseudo:
            row.append(f"{pseudo[name]:.4f}" if name in pseudo else "-")
    note = (
        "AP: average precision. The relative map is the anomaly map divided by the mean map of "
        f"normal training images. In A, R has the weight {config.score.gamma:g}. The upper "
        f"quantile is {config.score.map_quantile:g}."
    )
    if summary["threshold"] is not None:
        note += f" {_threshold(summary)}"
    if pseudo:
        header.append("pseudo-defects")
        note += _PSEUDO
    return page.join([page.table(header, rows), page.note(note)])


def _kind_table(summary: dict[str, Any], test: ImageSet) -> Html:
    names = text.headline_scores(summary)
    rows = [
        [kind, test.kinds.count(kind), *(f"{values[name]:.4f}" for name in names)]
        for kind, values in summary["by_kind"].items()
    ]
    labels = [score_label(name, summary["protocol"]) for name in names]
    table = page.table(["kind of defect", "images", *labels], rows)
    note = page.note("Image AUROC of each kind of defect against all good images.")
    return page.join([element("h3", "By kind"), table, note])


def _control_table(summary: dict[str, Any]) -> Html:
    header, *rows = text.control_rows(summary)
    table = page.table(header, rows)
    note = page.note(
        "Simple statistics of the same images, without a network. Turned around: low values count "
        "as defective."
    )
    return page.join([element("h3", "Controls"), table, note])
