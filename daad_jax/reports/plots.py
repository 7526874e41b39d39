"""Figures of a run's results. Only this file imports Matplotlib.

Functions return a `matplotlib.figure.Figure` (``figure.savefig("roc.pdf")``) or an array of pixels.
They do not change pyplot's global state. With a trained run::

    result = daad_jax.load(workdir).score(images)
    scale = plots.color_scale(result.anomaly_map)
    figure = plots.example_figure(
        images[0], result.reconstruction[0], result.anomaly_map[0], scale=scale
    )
    figure.savefig("example.png", dpi=200)
"""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from sklearn.metrics import roc_curve

from daad_jax.data.dataset import GOOD
from daad_jax.evaluation import metrics

Scale = tuple[float, float]
"""The values of an anomaly map that get the first and the last colour."""

SCALE_QUANTILE = 0.995
"""The quantile of all pixels that gets the last colour of `color_scale`."""
MASK_COLOR = "#22d3ee"
_COLORS = ("#3b7fc4", "#d9722e", "#2f9e75", "#9562c4", "#c94f63")
_INK = "#41474f"
_COLORMAP = "magma"
_OVERLAY_STRENGTH = 0.85
_MAX_POINTS = 250
_FEW_POINTS = 20
_MAX_BINS = 40
_LONG_TAIL = 20.0
_CELL = 0.78  # inches
_GRID_DPI, _GRID_COLORS = 110, 128
_LEGEND_ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 3}
_STYLE: dict[Any, Any] = {
    **{f"{name}.color": _INK for name in ("grid", "text", "xtick", "ytick")},
    **{f"axes.{name}color": _INK for name in ("edge", "label")},
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=_COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.alpha": 0.15,
    "image.interpolation": "nearest",
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.2,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
}
_styled = mpl.rc_context(_STYLE)  # a decorator


class Cell(NamedTuple):
    """A picture of a grid: uint8 ``(h, w)`` or ``(h, w, 3)``, and the line above it."""

    pixels: np.ndarray
    caption: str = ""


def color_scale(anomaly_maps: np.ndarray) -> Scale:
    """One scale for several maps: from 0 to the 99.5 % quantile of their pixels.

    `anomaly_maps` is float ``(n, H, W)`` and not negative.
    """
    return 0.0, float(np.quantile(anomaly_maps, SCALE_QUANTILE)) or 1.0


def _norm(scale: Scale) -> PowerNorm:
    """Maps values to colours by their square root, so that faint defects are visible too."""
    return PowerNorm(0.5, *scale, clip=True)


def map_colors(anomaly_map: np.ndarray, scale: Scale) -> np.ndarray:
    """Converts an anomaly map, float ``(H, W)``, to colours, uint8 ``(H, W, 3)``.

    Values outside the scale are clipped.
    """
    colors = mpl.colormaps[_COLORMAP](_norm(scale)(anomaly_map), bytes=True)
    return np.asarray(colors)[..., :3]


def heat_map(image: np.ndarray, anomaly_map: np.ndarray, scale: Scale) -> np.ndarray:
    """Overlays an anomaly map on the grey image. Higher values are more opaque.

    `image` is uint8 ``(H, W)`` or ``(H, W, C)`` of any size, where C is 1 or 3. `anomaly_map` is
    float ``(h, w)`` and is resized to the image. Returns uint8 ``(H, W, 3)``, which
    ``PIL.Image.fromarray(heat_map(...)).save("heat.png")`` writes.
    """
    grey = np.asarray(Image.fromarray(squeeze(image)).convert("L"))
    resized = Image.fromarray(np.asarray(anomaly_map, np.float32))
    values = np.asarray(resized.resize(grey.shape[::-1], Image.Resampling.BILINEAR))
    strength = _OVERLAY_STRENGTH * np.clip(_norm(scale)(values).data, 0.0, 1.0)[..., None]
    mixed = (1 - strength) * grey[..., None] + strength * map_colors(values, scale)
    return np.round(mixed).astype(np.uint8)


@_styled
def example_figure(
    image: np.ndarray,
    reconstruction: np.ndarray,
    anomaly_map: np.ndarray,
    *,
    scale: Scale,
    mask: np.ndarray | None = None,
) -> Figure:
    """Draws input, reconstruction and anomaly map of one image side by side, with a colour bar.

    `image` is uint8 ``(h, w)`` or ``(h, w, C)`` of any size, where C is 1 or 3. `reconstruction` is
    float ``(H, W, C)`` in [-1, 1], and `anomaly_map` is float ``(H, W)``. `mask` is bool
    ``(H, W)``, true on the defect. Its outline is drawn on the map.
    """
    figure = Figure(figsize=(7.0, 2.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(squeeze(image), cmap="gray", vmin=0, vmax=255)
    middle.imshow(to_pixels(reconstruction), cmap="gray", vmin=0, vmax=255)
    drawn = right.imshow(anomaly_map, cmap=_COLORMAP, vmin=scale[0], vmax=scale[1])
    if mask is not None and mask.any() and not mask.all():
        right.contour(mask, [0.5], colors=MASK_COLOR, linewidths=1.2)
    figure.colorbar(drawn, ax=right, extend="max")
    titles = {"input": left, "reconstruction": middle, "anomaly map": right}
    for title, axes in titles.items():
        axes.set_title(title)
        axes.set_axis_off()
    return figure


@_styled
def score_histogram(
    labels: np.ndarray, scores: np.ndarray, *, name: str = "A", threshold: float | None = None
) -> Figure:
    """Draws histograms of a score for good and for defective images, each as a share of its class.

    The axis of scores with a long tail is linear up to their median and logarithmic above it.
    `labels` is int ``(n,)``, 1 for defective, and `scores` is float ``(n,)``. `name` is the label
    of the axis. The threshold is drawn as a dashed line.
    """
    kinds = {kind: scores[labels == label] for label, kind in enumerate((GOOD, "defective"))}
    return histogram(kinds, name=name, threshold=threshold)


@_styled
def histogram(
    groups: Mapping[str, np.ndarray], *, name: str, threshold: float | None = None
) -> Figure:
    """Draws histograms of values of several groups, each as a share of its group.

    `groups` maps the name of each group to float ``(n,)``. The rest is as in `score_histogram`.
    """
    figure, axes = _one_plot()
    bins = _bins(np.concatenate(list(groups.values())), axes)
    for color, (kind, values) in zip(_COLORS, groups.items(), strict=False):
        share = np.full(len(values), 1 / max(len(values), 1))
        options: dict[str, Any] = {"bins": bins, "weights": share, "color": color}
        axes.hist(values, histtype="stepfilled", alpha=0.3, **options)
        axes.hist(values, histtype="step", label=f"{kind} ({len(values)})", **options)
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linestyle="--", linewidth=1.0, label="threshold")
    axes.set(xlabel=name, ylabel="share of images")
    axes.legend(**_LEGEND_ABOVE)
    return figure


def _bins(scores: np.ndarray, axes: Axes) -> np.ndarray:
    """Chooses bins, and a scale of the horizontal axis that shows a long tail."""
    count = min(_MAX_BINS, round(2 * np.sqrt(len(scores))))
    middle = _show_tail(axes.xaxis, axes.set_xscale, scores)
    if middle is None:
        return np.histogram_bin_edges(scores, count)
    low, high = np.arcsinh([scores.min() / middle, scores.max() / middle])
    return middle * np.sinh(np.linspace(low, high, count + 1))


def _show_tail(axis: Axis, set_scale: Callable[..., None], scores: np.ndarray) -> float | None:
    """Makes an axis of scores with a long tail logarithmic above their median, and returns it."""
    middle, largest = float(np.median(np.abs(scores))), float(np.max(np.abs(scores)))
    if middle == 0 or largest <= _LONG_TAIL * middle:
        return None
    set_scale("asinh", linear_width=middle)
    powers = 10.0 ** np.arange(np.ceil(np.log10(middle)), np.log10(largest))
    axis.set_ticks([0.0, *powers[powers < scores.max()]])
    return middle


@_styled
def area_figure(
    shares: np.ndarray, scores: np.ndarray, *, name: str = "A", threshold: float | None = None
) -> Figure:
    """Draws a score against the share of the image that is defective, as Figure 6 of the paper.

    Good images are drawn at the left edge, spread at random, as the logarithmic axis has no zero.
    `shares` is float ``(n,)`` in 0 to 1, 0 for an image without a defect, not all of them 0. NaN is
    not drawn.
    `scores` is float ``(n,)``. `name` is the label of the vertical axis, whose scale is that of
    `score_histogram`. The threshold is drawn as a dashed line.
    """
    figure, axes = _one_plot()
    is_good, is_bad, percent = shares == 0, shares > 0, 100 * shares
    smallest, largest = float(percent[is_bad].min()), float(percent[is_bad].max())
    # A third of the axis' decades, but not less than half of one, is for the good images.
    width = max(0.5, np.log10(largest / smallest) / 3)
    spread = np.random.default_rng(0).uniform(0.25, 0.95, int(is_good.sum()))
    places = percent.copy()
    places[is_good] = smallest * 10 ** (-width * spread)
    for chosen, kind in ((is_good, GOOD), (is_bad, "defective")):
        named = f"{kind} ({chosen.sum()})"
        axes.scatter(places[chosen], scores[chosen], s=9, alpha=0.6, linewidths=0, label=named)
    axes.axvline(smallest * 10 ** (-width * 0.12), color=_INK, linestyle=":", linewidth=1.0)
    axes.set(xscale="log", xlabel="defective share of the image in %", ylabel=name)
    ticks = 10.0 ** np.arange(np.ceil(np.log10(smallest)), np.log10(largest) + 0.01)
    axes.set_xticks([*ticks], [f"{tick:g}" for tick in ticks])
    axes.xaxis.minorticks_off()
    if _show_tail(axes.yaxis, axes.set_yscale, scores) is not None:
        axes.set_ylim(bottom=min(0.0, float(scores.min())))
    if threshold is not None:
        axes.axhline(threshold, color=_INK, linestyle="--", linewidth=1.0, label="threshold")
    axes.legend(**_LEGEND_ABOVE)
    return figure


@_styled
def roc_figure(
    labels: np.ndarray, scores: np.ndarray, *, name: str = "A", samples: int = 1000, seed: int = 0
) -> Figure:
    """Draws the ROC curve of a score with its 95 % bootstrap band.

    `labels` is int ``(n,)``, 1 for defective, with both classes present. `scores` is float
    ``(n,)``. `name` is the score's name in the legend. `samples` and `seed` are those of the
    bootstrap.
    """
    figure, axes = _one_plot()
    rates, low, high = metrics.bootstrap_roc(labels, scores, samples=samples, seed=seed)
    axes.fill_between(rates, low, high, alpha=0.2, linewidth=0, label="95 % interval")
    auroc = metrics.image_auroc(labels, scores)
    axes.plot(*roc_curve(labels, scores)[:2], color=_COLORS[0], label=f"{name}: {auroc:.3f}")
    axes.plot([0, 1], [0, 1], color=_INK, linestyle=":", linewidth=1.0)
    limits = (-0.01, 1.01)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=limits, ylim=limits)
    axes.legend(loc="lower right")
    return figure


@_styled
def curve_figure(
    steps: np.ndarray,
    curves: Mapping[str, np.ndarray],
    label: str,
    *,
    limits: tuple[float | None, float | None] = (None, None),
    log: bool = False,
) -> Figure:
    """Draws metrics over training. Long curves become means and ranges of neighbouring steps.

    `steps` is ``(n,)`` and ascending. `curves` maps the name of each metric to float ``(n,)``.
    Values that are not finite are left out. `label`, `limits` (None fits the values) and `log`
    (logarithmic) are those of the vertical axis.
    """
    figure, axes = _one_plot()
    middle, _, _ = _thinned(steps)
    marker = "." if len(steps) <= _FEW_POINTS else ""
    for name, values in curves.items():
        mean, low, high = _thinned(values)
        (line,) = axes.plot(middle, mean, marker=marker, label=name)
        if len(steps) > _MAX_POINTS:
            axes.fill_between(middle, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    axes.set(xlabel="step", ylabel=label, yscale="log" if log else "linear", ylim=limits)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.legend(**_LEGEND_ABOVE)
    return figure


def _thinned(values: np.ndarray) -> list[np.ndarray]:
    """Mean, minimum and maximum of groups of neighbouring values, NaN without a finite value."""
    size = -(-len(values) // _MAX_POINTS)
    padded = np.pad(np.asarray(values, float), (0, -len(values) % size), constant_values=np.nan)
    groups = np.ma.masked_invalid(padded.reshape(-1, size))
    return [part.filled(np.nan) for part in (groups.mean(1), groups.min(1), groups.max(1))]


@_styled
def color_bar(scale: Scale) -> Figure:
    """Draws the colours of `map_colors` with their values."""
    figure = Figure(figsize=(4.4, 0.55), layout="constrained")
    low, high = scale
    # Evenly spaced on the square-root scale.
    ticks = [low + (high - low) * (part / 4) ** 2 for part in range(5)]
    figure.colorbar(
        ScalarMappable(_norm(scale), _COLORMAP),
        cax=figure.subplots(),
        orientation="horizontal",
        extend="max",
        ticks=ticks,
        format="%.2g",
    )
    return figure


def grid_figure(columns: Sequence[tuple[str, Sequence[Cell]]], rows: Sequence[str]) -> Figure:
    """Draws a grid of pictures.

    `columns` has each column's title and its cells from top to bottom. `rows` are the labels on the
    left.
    """
    lines = max(title.count("\n") + 1 for title, _ in columns)
    captions = any(cell.caption for _, cells in columns for cell in cells)
    height = _CELL + (0.12 if captions else 0.0)
    size = (_CELL * len(columns) + 0.3, height * len(rows) + 0.14 * lines + 0.1)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=size, layout=layout, facecolor="white")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes_column, (title, cells) in zip(grid.T, columns, strict=True):
        for axes, cell in zip(axes_column, cells, strict=True):
            axes.imshow(cell.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(cell.caption, fontsize=6, pad=2)
        first = "\n".join(filter(None, [title, cells[0].caption]))
        axes_column[0].set_title(first, fontsize=6.5, pad=2)
    for axes, label in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(label, fontsize=6.5, labelpad=2)
    return figure


def save_small(path: Path, *figures: Figure, dpi: int = _GRID_DPI) -> None:
    """Writes figures, left to right, as a small PNG of few colours. Creates the folder."""
    parts = []
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dpi)
        parts.append(np.asarray(Image.open(file).convert("RGB")))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.hstack(parts))
    picture.quantize(_GRID_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


def inline_svg(figure: Figure, label: str) -> str:
    """Converts a figure to an SVG element for an HTML page, with the page's font and text colour.

    The same figure and label always give the same text. `label` is a description for screen readers
    and must differ between the figures of a page.
    """
    file = io.StringIO()
    # The salt goes into all identifiers, which must be unique on the page.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}):
        omitted = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=omitted)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r" ?font-family: [^;\"]*;", "", svg).replace(_INK, "currentColor")
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    body = re.sub(r"\s*\n\s*", " ", svg[svg.index(">", box.end()) + 1 :])
    return f'<svg role="img" aria-label="{html.escape(label)}" {box[0]}>{body.strip()}'


def to_pixels(reconstruction: np.ndarray) -> np.ndarray:
    """Converts float ``(H, W, C)`` in [-1, 1] to uint8 ``(H, W, 3)``, or ``(H, W)`` if C is 1."""
    return squeeze(np.round(np.clip((reconstruction + 1.0) * 127.5, 0, 255)).astype(np.uint8))


def squeeze(image: np.ndarray) -> np.ndarray:
    """Drops the channel axis of a ``(H, W, 1)`` image."""
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _one_plot() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    return figure, figure.subplots()
