"""The report's curves over training: every logged metric, with the captions of `_CAPTIONS`."""

from typing import Any

import numpy as np

from daad_jax.reports import page, plots
from daad_jax.reports.page import Html
from daad_jax.train.losses import LOSSES

_CAPTIONS = {
    "loss/generator": "Total loss of the generator, the weighted sum of its terms.",
    "loss/discriminator": "Adversarial loss of the discriminator.",
    "loss/addressing": "Weighted sum of the losses of the addressing rules.",
    "discriminator": "Probability of being real that the discriminator gives to training images "
    "(real) and to reconstructions (fake), mean of a batch. Near 0.5 it cannot tell them apart.",
    "gradient_norm": "Norm of the gradient of each network.",
    "reconstruction_gradient": "Norm of the gradient of each weighted loss by the reconstructions "
    "of a batch: how hard each loss pulls at the pixels.",
    "memory/active_items": "Items with a weight above zero in a read, mean of a batch.",
    "memory/largest_weight": "Largest weight of a read, mean of a batch.",
    "memory/entropy": "Entropy of the weights of a read in nats, mean of a batch.",
    "memory/unused_items": "Items without a weight above zero in any read of a batch.",
    "memory/perplexity": "Effective number of items that a batch uses.",
    "memory/dead_reads": "Reads of a batch whose weights are all zero.",
}

Columns = dict[str, np.ndarray]  # metrics by name, from `read_metrics`


def training_section(columns: Columns) -> Html:
    """Renders a figure for each loss, and for all other metrics that are not about memories."""
    grouped = {key: one for key, one in _group(columns).items() if not key.startswith("memory/")}
    note = (
        "Each loss is shown without its weight. In long runs a line is the mean of neighbouring "
        "steps, and a band is their range."
    )
    figures = [_draw(columns, key, grouped[key]) for key in sorted(grouped, key=_rank)]
    text = note if figures else "No metrics were logged."
    return page.section("Training", page.note(text), page.group("columns", figures))


def memory_section(memory: dict[str, dict[str, Any]], columns: Columns, used: str) -> Html:
    """Renders the use of the memories. It is empty for a run without memory.

    `memory` is the entry ``memory`` of an evaluation's summary. `used` says which images it was
    measured on, "test" or "training".
    """
    if not memory:
        return Html("")
    images = next(iter(memory.values()))["images"]
    note = (
        f"Measured on {images} evenly spaced {used} images. Items read: items with a weight above "
        "zero in at least one read; all others were never read. Effective items: exponential of "
        "the entropy of the items' shares in the total weight. Active items: items with a weight "
        "above zero in one read. Active items and entropy (nats) are means over reads. Dead reads: "
        "reads whose weights are all zero. Cosine: similarity of pairs of items. Scale 1 is the "
        "finest."
    )
    grouped = {key: one for key, one in _group(columns).items() if key.startswith("memory/")}
    if "memory/dead_reads" in grouped and not np.any(list(grouped["memory/dead_reads"].values())):
        note += " Training had no dead reads."
        del grouped["memory/dead_reads"]
    figures = [_draw(columns, key, grouped[key]) for key in sorted(grouped, key=_rank)]
    parts = (_memory_table(memory), page.note(note), page.group("columns", figures))
    return page.section("Memory", *parts)


def _memory_table(memory: dict[str, dict[str, Any]]) -> Html:
    names = [name for name in next(iter(memory.values())) if name != "images"]
    rows: list[list[str]] = []
    for scale, values in memory.items():
        cells = [values[name] for name in names]
        shown = [f"{cell:,}" if isinstance(cell, int) else f"{cell:z.2f}" for cell in cells]
        rows.append([page.words(scale), *shown])
    return page.table(["memory", *names], rows)


def _group(columns: Columns) -> dict[str, Columns]:
    """Groups metrics into figures: each loss, each memory metric for all scales, each prefix."""
    figures: dict[str, Columns] = {}
    for name in sorted(columns.keys() - {"step"}):
        key, _, curve = name.partition("/")
        if key == "loss":
            key = name
        elif key == "memory":
            curve, _, field = curve.partition("/")
            key = f"memory/{field}"
        figures.setdefault(key, {})[page.words(curve or name)] = columns[name]
    return figures


def _rank(key: str) -> tuple[bool, int, str]:
    """Sorts losses first, and metrics with a caption before others."""
    order = [*(f"loss/{name}" for name in LOSSES), *_CAPTIONS]
    return not key.startswith("loss/"), order.index(key) if key in order else len(order), key


def _draw(columns: Columns, key: str, curves: Columns) -> Html:
    prefix, _, name = key.partition("/")
    caption = _CAPTIONS.get(key, f"Metric {page.words(name or prefix)}.")
    limits: tuple[float | None, float | None] = (None, None)
    if prefix == "loss" and name in LOSSES:
        caption = f"{LOSSES[name].sentence}."
    elif prefix == "discriminator":
        limits = (-0.02, 1.02)
    elif prefix == "memory" and key in _CAPTIONS:
        limits = (0.0, None)
    label = page.words(name if prefix == "memory" else prefix)
    log = prefix in ("gradient_norm", "reconstruction_gradient")
    measured = ~np.isnan(next(iter(curves.values())))
    curves = {name: values[measured] for name, values in curves.items()}
    figure = plots.curve_figure(columns["step"][measured], curves, label, limits=limits, log=log)
    return page.plot(figure, caption[:1].upper() + caption[1:])
