"""``report.html``: the results of a run as one page that needs no other file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.data import Dataset
from daad_jax.evaluation.baselines import best_baseline
from daad_jax.evaluation.evaluate import Evaluation
from daad_jax.evaluation.picking import pick_examples
from daad_jax.reports import curves, detection, examples, localization, memory, page, text
from daad_jax.reports.page import Html, element
from daad_jax.runtime.files import replacing
from daad_jax.scoring.scores import score_label
from daad_jax.train.metrics_log import read_metrics

REPORT_FILE = "report.html"


def write_report(folder: Path, evaluation: Evaluation, dataset: Dataset) -> Path:
    """Writes the report of one category. Returns the file ``report.html``.

    `folder` is the run's folder. Its ``metrics.jsonl`` is read if there is one.
    """
    summary, columns, test = evaluation.summary, read_metrics(folder), dataset.test
    deciding = evaluation.scores.get(summary["decision"], evaluation.raw.reconstruction_score)
    picked = pick_examples(test.kinds, deciding)
    body = [
        _headline(summary),
        detection.section(evaluation, test),
        localization.section(evaluation, test),
        examples.section(evaluation, test, picked) if picked else Html(""),
        examples.pseudo_section(evaluation.pseudo) if evaluation.pseudo else Html(""),
        curves.training_section(columns),
        curves.memory_section(summary["memory"], columns, "test" if len(test) else "training"),
        memory.section(evaluation, dataset, examples.extreme_positions(picked)),
        _config_section(evaluation.config),
    ]
    return _write(folder, page.document(_title(summary), body))


def write_summary(workdir: Path, results: Sequence[dict[str, Any]], folders: Sequence[str]) -> Path:
    """Writes the report of several categories, with a row for each and for the mean.

    `results` are the summaries of their evaluations. `folders` are the names of their folders in
    `workdir`, whose reports are linked. Returns the file ``report.html``.
    """
    header, *rows, mean = text.summary_rows(results)
    for row, folder in zip(rows, folders, strict=True):
        target = f"{quote(os.fsencode(folder), safe='')}/{REPORT_FILE}"
        row[0] = element("a", row[0], href=target)
    means = dict(zip(header, mean, strict=True))
    label = score_label(results[0]["decision"], results[0]["protocol"])
    title = f"{len(results)} categories \u00b7 {results[0]['setting']}"
    note = (
        "Image AUROC of each score, and pixel AUROC of the anomaly map. The best control is the "
        "best of all controls in both directions, chosen with the test labels."
    )
    body = [
        element("h1", title),
        page.numbers(
            (f"image AUROC of {label}", means[label], "mean of the categories"),
            ("best control", means["best control"], "mean of each category's best"),
            ("pixel AUROC", means["pixel"], "mean of the categories"),
        ),
        page.section("Categories", page.table(header, [*rows, mean], total=True), page.note(note)),
    ]
    return _write(workdir, page.document(title, body))


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['category']} \u00b7 {summary['setting']}"


def _headline(summary: dict[str, Any]) -> Html:
    decision, pseudo = summary["decision"], summary["pseudo"]
    label, numbers = score_label(decision, summary["protocol"]), []
    if text.has_auroc(summary):
        values = summary["scores"][decision]
        control, best = best_baseline(summary["controls"])
        interval = f"95 % interval: {text.interval(values)}"
        numbers = [
            (f"image AUROC of {label}", f"{values['image_auroc']:.4f}", interval),
            ("best control", f"{best:.4f}", f"{control}, chosen with the test labels"),
        ]
    elif pseudo is not None:
        label = score_label(decision, "calibrated")
        found = f"{pseudo['scores'][decision]:.4f}"
        numbers = [(f"image AUROC of {label}", found, "on pseudo-defects, no test image used")]
    if summary["pixel_auroc"] is not None:
        overlap = f"AUPRO up to 30 % false positives: {summary['aupro_30']:.4f}"
        numbers.append(("pixel AUROC of the map", f"{summary['pixel_auroc']:.4f}", overlap))
    good, defective = summary["test_good"], summary["test_defective"]
    numbers.append(("test images", f"{good + defective:,}", f"{good} good, {defective} defective"))
    images = f"{summary['train_images']:,} images"
    if summary["calibration_images"]:
        images += f", {summary['calibration_images']} held out"
    numbers.append(("training steps", f"{summary['step']:,}", images))
    return page.join([element("h1", _title(summary)), page.numbers(*numbers)])


def _config_section(config: Config) -> Html:
    flat = config_lib.flatten(config_lib.to_dict(config))
    table = page.table(["field", "value"], [[name, json.dumps(flat[name])] for name in flat])
    return element("details", element("summary", "Configuration"), table)


def _write(folder: Path, content: str) -> Path:
    path = folder / REPORT_FILE
    with replacing(path) as partial:
        partial.write_text(content, encoding="utf-8")
    return path
