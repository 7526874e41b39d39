"""The report's section on localisation: metrics of the map, and scores against defect area."""

from daad_jax.data import ImageSet
from daad_jax.evaluation.evaluate import Evaluation
from daad_jax.evaluation.localization import defective_shares
from daad_jax.reports import page, plots, text
from daad_jax.reports.page import Html
from daad_jax.scoring.scores import score_label

_ROWS = {
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel average precision",
    "aupro_30": "AUPRO up to 30 %",
    "aupro_5": "AUPRO up to 5 %",
    "pixel_auroc_relative": "pixel AUROC of the relative map",
}
_NOTE = (
    "AUPRO: the mean share of a defect's pixels that is found, over all false positive rates up to "
    "the limit; every defect counts alike, whatever its size."
)


def section(evaluation: Evaluation, test: ImageSet) -> Html:
    """Renders the section; nothing without a defective pixel in the masks."""
    summary = evaluation.summary
    if test.masks is None or summary["pixel_auroc"] is None:
        return Html("")
    sizes = summary["masks"]
    low, high = ("{1} x {0}".format(*sizes[name]) for name in ("smallest", "largest"))
    note = f"{_NOTE} Measured at the masks' own size, {low if low == high else f'{low} to {high}'}."
    table = page.table(
        ["metric", f"{evaluation.config.score.map} map"],
        [[label, f"{summary[name]:.4f}"] for name, label in _ROWS.items()],
    )
    shares = defective_shares(test.masks, test.labels)
    figures = []
    for name in dict.fromkeys([summary["decision"], "R", "A"]):
        if name in evaluation.scores:
            label = score_label(name, summary["protocol"])
            figure = plots.area_figure(
                shares,
                evaluation.scores[name],
                name=label,
                threshold=text.threshold_of(summary, name),
            )
            caption = f"{label} against the area of the defect. Good images are left of the dots."
            figures.append(page.plot(figure, caption))
    return page.section("Localisation", table, page.note(note), page.group("columns", figures))
