"""``report.html``: what a run found, as one page that stands alone."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from skimage.measure import find_contours

from daad_jax import config as config_lib
from daad_jax import controls, files, memory_report, page, plots, report, training
from daad_jax.config import Config
from daad_jax.data import Dataset, ImageSet
from daad_jax.data.dataset import GOOD
from daad_jax.evaluation import Evaluation
from daad_jax.page import Html, element
from daad_jax.plots import Scale

REPORT_FILE = "report.html"
_MOST_KINDS = 24
_MOST_EXPLAINED = 6
_DISTANCES = {"reconstruction": "loss/rec", "alignment": "loss/ali"}
_GAME = {"generator": "loss/adv", "discriminator": "loss/discriminator"}
_DECISIONS = {"D(x)": "discriminator/real", "D(x\u0302)": "discriminator/fake"}
_GRADIENTS = {
    "generator": "gradient_norm/generator",
    "discriminator": "gradient_norm/discriminator",
}
_READS = {
    "active_items": ("active items", "Items with a weight above zero in a read, mean of a batch."),
    "largest_weight": ("largest weight", "Largest weight of a read, mean of a batch."),
    "entropy": ("entropy (nats)", "Entropy of a read's weights, mean of a batch."),
    "unused_items": ("unused items", "Items that no read of a batch took."),
    "perplexity": ("perplexity of use", "Of the items' shares in a batch's weight; at most N."),
    "dead_reads": ("dead reads", "Reads of a batch that dropped every weight."),
}


class Example(NamedTuple):
    """A test image to show.

    Attributes:
        kind: its defect type, or "good".
        role: why it is shown.
        position: in the test images.
    """

    kind: str
    role: str
    position: int


def write_report(workdir: Path, evaluation: Evaluation, dataset: Dataset) -> Path:
    """Writes ``report.html`` of one category into its workdir.

    Args:
        workdir: of the run; ``metrics.jsonl`` is read there, if it is there.
        evaluation: what `daad_jax.evaluation.evaluate` returned.
        dataset: what it was called with.

    Returns:
        The file.
    """
    summary, columns = evaluation.summary, training.read_metrics(workdir)
    title = f"{summary['category']} \u00b7 {summary['setting']}"
    body = [
        _headline(summary, title),
        _detection(evaluation, dataset.test),
        _examples(evaluation, dataset.test),
        _training(columns),
        _memory(summary["memory"], columns),
        memory_report.explain(evaluation, dataset, _explained(evaluation, dataset.test)),
        _config(evaluation.config),
    ]
    return _write(workdir, page.document(title, body))


def write_summary(workdir: Path, results: Sequence[dict[str, Any]], folders: Sequence[str]) -> Path:
    """Writes ``report.html`` of several categories: a row each, and the mean.

    Args:
        workdir: the folder that holds the categories' workdirs.
        results: the summary of each category's `Evaluation`.
        folders: the name of each category's workdir; its own report is linked there.

    Returns:
        The file.
    """
    header, *rows, mean = report.summary_rows(results)
    for row, folder in zip(rows, folders, strict=True):
        target = f"{quote(os.fsencode(folder), safe='')}/{REPORT_FILE}"
        row[0] = element("a", row[0], href=target)
    means = dict(zip(header, mean, strict=True))
    label = report.score_label(results[0]["verdict"], results[0]["protocol"])
    numbers = [
        page.number(means[label], f"image AUROC of {label}", "mean of the categories"),
        page.number(means["best control"], "best control", "mean of each category's own"),
        page.number(means["pixel"], "pixel AUROC", "mean of the categories"),
    ]
    title = f"{len(results)} categories \u00b7 {results[0]['setting']}"
    body = [
        element("h1", title),
        element("div", *numbers, class_="numbers"),
        element("h2", "Categories"),
        page.table(header, [*rows, mean], total=True),
        _note(
            "Image AUROC of each score, and pixel AUROC of the anomaly map. The best control is "
            "picked among all controls and directions by the test labels themselves."
        ),
    ]
    return _write(workdir, page.document(title, body))


def pick_examples(kinds: Sequence[str], anomaly_score: np.ndarray) -> list[Example]:
    """The worst, typical (median) and best scored image of "good" and of each defect type.

    The worst good image is the one with the highest score, the worst defective one that with the
    lowest. A kind of one or two images has no more than these.

    Args:
        kinds: of ``n`` images.
        anomaly_score: the score that decides, ``(n,)``.
    """
    picked = []
    for kind in sorted(set(kinds), key=lambda kind: (kind != GOOD, kind)):
        members = np.flatnonzero([name == kind for name in kinds])
        ranked = members[np.argsort(anomaly_score[members], kind="stable")]
        if kind == GOOD:
            ranked = ranked[::-1]
        roles = {0: "worst", len(ranked) - 1: "best"}
        if len(ranked) > 2:
            roles[len(ranked) // 2] = "typical"
        if len(ranked) == 1:
            roles = {0: "only one"}
        picked += [Example(kind, roles[place], int(ranked[place])) for place in sorted(roles)]
    return picked


def _explained(evaluation: Evaluation, test: ImageSet) -> list[int]:
    """The extreme examples, at most `_MOST_EXPLAINED`."""
    picked = pick_examples(test.kinds, evaluation.scores[evaluation.summary["verdict"]])
    return [one.position for one in picked if one.role != "typical"][:_MOST_EXPLAINED]


def _headline(summary: dict[str, Any], title: str) -> Html:
    values = summary["scores"][summary["verdict"]]
    label = summary["verdict"].replace("_", " ")
    control, best = controls.best_control(summary["controls"])
    numbers = [
        page.number(
            f"{values['image_auroc']:.4f}",
            f"image AUROC of {label}",
            f"95 %: {_interval(values)}",
        ),
        page.number(f"{best:.4f}", "best control", f"{control}, picked by the labels"),
    ]
    if summary["pixel_auroc"] is not None:
        value = f"{summary['pixel_auroc']:.4f}"
        relative = f"relative to normal images: {summary['pixel_auroc_relative']:.4f}"
        numbers.append(page.number(value, "pixel AUROC of the map", relative))
    count = summary["test_good"] + summary["test_defective"]
    detail = f"{summary['test_good']} good, {summary['test_defective']} defective"
    numbers.append(page.number(f"{count:,}", "test images", detail))
    held_out = summary["calibration_images"]
    detail = f"{summary['train_images']:,} images" + (f", {held_out} held out" if held_out else "")
    numbers.append(page.number(f"{summary['step']:,}", "training steps", detail))
    return page.join([element("h1", title), element("div", *numbers, class_="numbers")])


def _interval(values: dict[str, Any]) -> str:
    low, high = values["image_auroc_interval"]
    return f"{low:.3f} to {high:.3f}"


def _detection(evaluation: Evaluation, test: ImageSet) -> Html:
    summary, config = evaluation.summary, evaluation.config
    labels, named = test.labels, evaluation.scores
    verdict, threshold = summary["verdict"], summary["threshold"]
    if verdict == "A" and config.score.protocol != "calibrated":
        threshold = None
    main = verdict.replace("_", " ")
    figures = [
        page.plot(
            plots.inline_svg(
                plots.roc_figure(
                    labels,
                    named[verdict],
                    name=main,
                    samples=config.score.bootstrap_samples,
                    seed=config.seed,
                ),
                f"ROC curve of {main}",
            ),
            f"ROC curve of {main}; the band is the 95 % bootstrap interval at each false positive "
            "rate.",
        )
    ]
    for name in dict.fromkeys([verdict, "A", "R", "L", "R_contrast_relative"]):
        if name in named:
            line = threshold if name == verdict else None
            shown = name.replace("_", " ")
            drawn = plots.score_histogram(labels, named[name], name=shown, threshold=line)
            figures.append(
                page.plot(
                    plots.inline_svg(drawn, f"histogram of {shown}"),
                    f"{shown} of good and of defective test images.",
                )
            )
    return page.join(
        [
            element("h2", "Detection"),
            _score_table(summary, config),
            _kind_table(summary, test),
            _control_table(summary),
            element("h3", "Curves and histograms"),
            element("div", *figures, class_="columns"),
        ]
    )


def _score_table(summary: dict[str, Any], config: Config) -> Html:
    pseudo = {} if summary["pseudo"] is None else summary["pseudo"]["scores"]
    rows = [
        [
            report.score_label(name, summary["protocol"]),
            f"{values['image_auroc']:.4f}",
            _interval(values),
            f"{values['average_precision']:.4f}",
            f"{values['best_f1']:.4f}",
            *([f"{pseudo[name]:.4f}" if name in pseudo else "-"] if pseudo else []),
        ]
        for name, values in summary["scores"].items()
    ]
    header = ["score", "image AUROC", "95 % interval", "AP", "best F1"]
    header += ["pseudo-defects"] if pseudo else []
    gamma = config.score.gamma
    fused = "R scaled"
    if "L" in summary["scores"]:
        fused = f"{gamma:g} R + {1 - gamma:g} L, both scaled"
    text = (
        "AP: average precision. R: reconstruction error. L: error of the discriminator's features. "
        f"A: {fused} by held-out normal images (calibrated) or by the test images themselves "
        "(paper). Not the paper's: max and quantile are those of the smoothed map of the same "
        f"error, the quantile {config.score.map_quantile:g}, contrast its maximum over its median; "
        "relative means that the map was divided by the mean map of normal training images."
    )
    if pseudo:
        text += (
            " Pseudo-defects: image AUROC of held-out normal images against defects made from "
            "training images, without any test image."
        )
    if summary["threshold"] is not None:
        verdict = report.score_label(summary["verdict"], "calibrated")
        text += f" {verdict} at or above {summary['threshold']:.4f} is called defective."
    return page.join([page.table(header, rows), _note(text)])


def _kind_table(summary: dict[str, Any], test: ImageSet) -> Html:
    names = [name for name in report.MAIN_SCORES if name in summary["scores"]]
    rows = [
        [kind, test.kinds.count(kind), *(f"{values[name]:.4f}" for name in names)]
        for kind, values in summary["by_kind"].items()
    ]
    header = ["kind of defect", "images"]
    header += [report.score_label(name, summary["protocol"]) for name in names]
    text = "Image AUROC of each kind against all good images."
    return element("div", element("h3", "By kind"), page.table(header, rows), _note(text))


def _control_table(summary: dict[str, Any]) -> Html:
    rows = [
        [name.replace("_", " "), f"{values['image_auroc']:.4f}", f"{values['turned_around']:.4f}"]
        for name, values in summary["controls"].items()
    ]
    table = page.table(["control", "image AUROC", "turned around"], rows)
    text = "What statistics that know nothing of the method reach on the same images."
    return element("div", element("h3", "Controls"), table, _note(text))


def _examples(evaluation: Evaluation, test: ImageSet) -> Html:
    scale = plots.color_scale(evaluation.raw.anomaly_map)
    verdict = evaluation.summary["verdict"]
    examples = pick_examples(test.kinds, evaluation.scores[verdict])
    kinds = list(dict.fromkeys(example.kind for example in examples))
    outlined = (
        "" if test.masks is None else " The line on a map is the outline of the defect's mask."
    )
    parts = [
        element("h2", "Examples"),
        _note(
            "The worst, typical (median) and best image of each kind by "
            f"{verdict.replace('_', ' ')}: worst is the highest for good images and the lowest for "
            f"defective ones.{outlined}"
        ),
        element(
            "figure",
            Html(plots.inline_svg(plots.color_bar(scale), "colours of the anomaly maps")),
            element(
                "figcaption",
                "Anomaly map, one colour scale for all images: from 0 to the "
                f"{plots.SCALE_QUANTILE:.1%} quantile of all test pixels, {scale[1]:.3g}; "
                "the colours go with its square root.",
            ),
            class_="plot bar",
        ),
    ]
    for kind in kinds[:_MOST_KINDS]:
        cards = [
            _example(evaluation, test, example, scale)
            for example in examples
            if example.kind == kind
        ]
        parts += [element("h3", kind), element("div", *cards, class_="examples")]
    if len(kinds) > _MOST_KINDS:
        parts.append(_note(f"The first {_MOST_KINDS} of {len(kinds)} kinds are shown."))
    return page.join(parts)


def _example(evaluation: Evaluation, test: ImageSet, example: Example, scale: Scale) -> Html:
    index, raw = example.position, evaluation.raw
    mask = None if test.masks is None else test.masks[index]
    name = test.names[index]
    tiles = [
        _tile(plots.squeeze(np.asarray(test.images[index])), "input", name),
        _tile(plots.to_pixels(raw.reconstruction[index]), "reconstruction", name),
        _tile(plots.map_colors(raw.anomaly_map[index], scale), "anomaly map", name, mask),
    ]
    shown = dict.fromkeys([evaluation.summary["verdict"], "A", "R", "L"])
    values = [
        f"{score.replace('_', ' ')} {evaluation.scores[score][index]:.4g}"
        for score in shown
        if score in evaluation.scores
    ]
    caption = element(
        "figcaption",
        element("b", example.role),
        " \u00b7 ",
        ", ".join(values),
        element("br"),
        name,
    )
    return element("figure", element("div", *tiles, class_="tiles"), caption, class_="example")


def _tile(pixels: np.ndarray, what: str, name: str, mask: np.ndarray | None = None) -> Html:
    layers = [page.image(pixels, f"{what} of {name}")]
    if mask is not None and mask.any():
        height, width = mask.shape
        path = element("path", d=outline(mask))
        layers.append(element("svg", path, view_box=f"0 0 {width} {height}"))
    return element("div", element("div", *layers, class_="tile"), element("span", what))


def outline(mask: np.ndarray) -> str:
    """The outline of a bool ``(H, W)`` mask as the data of an SVG path, one pixel a unit."""
    padded = np.pad(mask, 1).astype(np.float32)
    # A contour's coordinates are those of pixels' centres, moved by the padding.
    lines = [contour - 0.5 for contour in find_contours(padded, 0.5)]
    return "".join("M" + "L".join(f"{x:g} {y:g}" for y, x in line) + "Z" for line in lines)


def _training(columns: dict[str, np.ndarray]) -> Html:
    if not columns:
        return page.join(
            [element("h2", "Training"), _note(f"There is no {training.METRICS_FILE}.")]
        )
    figures = [
        _curves(columns, _DISTANCES, "Losses of the images and features.", label="loss", log=True),
        _curves(
            columns, _GAME, "Losses of the game between generator and discriminator.", label="loss"
        ),
        _curves(
            columns,
            _DECISIONS,
            "Discriminator: mean D of real images and of reconstructions. Where both stay near "
            "0.5 it cannot tell them apart; where they part to 1 and 0 it has won.",
            label="D",
            limits=(-0.02, 1.02),
        ),
        _curves(columns, _GRADIENTS, "Gradient norms.", label="norm", log=True),
    ]
    return page.join(
        [
            element("h2", "Training"),
            _note(
                "Losses are unweighted. Lines are means of neighbouring logged steps, bands their "
                "range."
            ),
            element("div", *figures, class_="columns"),
        ]
    )


def _curves(
    columns: dict[str, np.ndarray], names: dict[str, str], caption: str, **options: Any
) -> Html:
    """A figure of those metrics that were logged; nothing when none was."""
    curves = {shown: columns[name] for shown, name in names.items() if name in columns}
    if not curves:
        return Html("")
    figure = plots.curve_figure(columns["step"], curves, **options)
    return page.plot(plots.inline_svg(figure, caption), caption)


def _memory(memory: dict[str, dict[str, Any]], columns: dict[str, np.ndarray]) -> Html:
    if not memory:
        return Html("")
    rows = [
        [
            _scale_name(scale),
            f"{values['items']:,}",
            f"{values['items_read']:,}",
            f"{values['never_read']:,}",
            f"{values['effective_items']:.1f}",
            f"{values['active_items']:.1f}",
            f"{values['entropy']:.2f}",
            f"{values['dead_reads']:,}",
            f"{values['cosine_mean']:.2f}",
            f"{values['cosine_largest']:.2f}",
        ]
        for scale, values in memory.items()
    ]
    images = next(iter(memory.values()))["images"]
    text = (
        f"Over {images} evenly spaced test images. An item is dead when no block of any of them "
        "gave it a weight above zero. Effective items: the exponential of the entropy of the "
        "items' shares in all weight. Active: items with a weight above zero in a read, and "
        "entropy of its weights in nats, means over reads; a dead read dropped every weight. "
        "Cosine: of pairs of items of a bank. Scale 1 is the finest."
    )
    header = ["memory", "items", "read", "dead", "effective", "active", "entropy"]
    header += ["dead reads", "mean cosine", "largest"]
    figures = []
    for field, (label, caption) in _READS.items():
        names = {_scale_name(scale): f"memory/{scale}/{field}" for scale in memory}
        logged = [columns[name] for name in names.values() if name in columns]
        if field == "dead_reads" and logged and not np.any(logged):
            text += " No logged read dropped every weight."
            continue
        figures.append(_curves(columns, names, caption, label=label, limits=(0, None)))
    return page.join(
        [
            element("h2", "Memory"),
            page.table(header, rows),
            _note(text),
            element("div", *figures, class_="columns"),
        ]
    )


def _scale_name(scale: str) -> str:
    return scale.replace("_", " ")


def _config(config: Config) -> Html:
    flat = config_lib.flatten(config_lib.to_dict(config))
    rows = [[name, json.dumps(value)] for name, value in flat.items()]
    table = page.table(["field", "value"], rows)
    return element("details", element("summary", "Configuration"), table)


def _note(text: str) -> Html:
    return element("p", text, class_="note")


def _write(workdir: Path, text: str) -> Path:
    path = workdir / REPORT_FILE
    with files.replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
