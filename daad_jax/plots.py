"""Pictures of a run's results, as Matplotlib figures. Only this file imports Matplotlib.

Every function returns a `matplotlib.figure.Figure` of its own (``figure.savefig("roc.pdf")``) or
an array of pixels; none of them touches pyplot's global state. With a trained run::

    result = daad_jax.load(workdir).score(images)
    scale = plots.color_scale(result.anomaly_map)
    figure = plots.example_figure(
        images[0], result.reconstruction[0], result.anomaly_map[0], scale=scale
    )
    figure.savefig("example.png", dpi=200)
"""

import functools
import html
import io
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from daad_jax import metrics
from daad_jax.data.dataset import GOOD

Scale = tuple[float, float]
"""The values of an anomaly map that get the first and the last colour."""

COLORS = ("#3b7fc4", "#d9722e", "#2f9e75", "#9562c4", "#c94f63")
SCALE_QUANTILE = 0.995
"""Which quantile of all pixels gets the last colour of `color_scale`."""
MASK_COLOR = "#22d3ee"
_GOOD, _DEFECTIVE = COLORS[0], COLORS[1]
_INK = "#41474f"
_COLORMAP = "magma"
_OVERLAY_STRENGTH = 0.85
_MAX_POINTS = 250
_MOST_BINS = 40
_LONG_TAIL = 20.0
_SIZE = (4.4, 2.9)
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.alpha": 0.15,
    "grid.color": _INK,
    "grid.linewidth": 0.8,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}

_Arguments = ParamSpec("_Arguments")


def _styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    @functools.wraps(draw)
    def styled(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def color_scale(anomaly_maps: np.ndarray) -> Scale:
    """A scale for maps that are to be compared: from 0 to the 99.5 % quantile of their pixels.

    Args:
        anomaly_maps: float ``(n, H, W)``, not negative.
    """
    return 0.0, float(np.quantile(anomaly_maps, SCALE_QUANTILE)) or 1.0


def _norm(scale: Scale) -> PowerNorm:
    """Colours go with the square root of the map, so that faint defects show beside strong ones."""
    return PowerNorm(0.5, *scale, clip=True)


def map_colors(anomaly_map: np.ndarray, scale: Scale) -> np.ndarray:
    """An anomaly map as colours.

    Args:
        anomaly_map: float ``(H, W)``.
        scale: what gets the first and last colour; what lies beyond gets them too.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    colors = mpl.colormaps[_COLORMAP](_norm(scale)(anomaly_map), bytes=True)
    return np.asarray(colors)[..., :3]


def heat_map(image: np.ndarray, anomaly_map: np.ndarray, scale: Scale) -> np.ndarray:
    """An image in grey with its anomaly map laid over it, the more opaque the higher.

    ``PIL.Image.fromarray(heat_map(...)).save("heat.png")`` writes it.

    Args:
        image: uint8 ``(H, W)`` or ``(H, W, C)``, C 1 or 3, of any size.
        anomaly_map: float ``(h, w)``; it is stretched to the image's size.
        scale: as in `map_colors`; the same one makes images comparable.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    grey = np.asarray(Image.fromarray(squeeze(image)).convert("L"))
    size = grey.shape[1], grey.shape[0]
    stretched = Image.fromarray(np.asarray(anomaly_map, np.float32))
    values = np.asarray(stretched.resize(size, Image.Resampling.BILINEAR))
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
    """Input, reconstruction and anomaly map of one image, side by side, with the colour bar.

    Args:
        image: uint8 ``(h, w)`` or ``(h, w, C)``, C 1 or 3, of any size.
        reconstruction: float ``(H, W, C)`` in [-1, 1].
        anomaly_map: float ``(H, W)``.
        scale: as in `map_colors`; the same one makes images comparable.
        mask: bool ``(H, W)``, true on the defect; its outline is drawn on the map.
    """
    figure = Figure(figsize=(7.0, 2.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, pixels in ((left, squeeze(image)), (middle, to_pixels(reconstruction))):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    drawn = right.imshow(anomaly_map, cmap=_COLORMAP, vmin=scale[0], vmax=scale[1])
    if mask is not None and mask.any() and not mask.all():
        right.contour(mask, [0.5], colors=MASK_COLOR, linewidths=1.2)
    figure.colorbar(drawn, ax=right, extend="max")
    titles = ("input", "reconstruction", "anomaly map")
    for axes, title in zip((left, middle, right), titles, strict=True):
        axes.set_title(title)
        axes.set_axis_off()
    return figure


@_styled
def score_histogram(
    labels: np.ndarray, scores: np.ndarray, *, name: str = "A", threshold: float | None = None
) -> Figure:
    """Histograms of a score for good and for defective images, each as a share of its class.

    Args:
        labels: int ``(n,)``, 1 for defective.
        scores: float ``(n,)``.
        name: the score's, for the axis.
        threshold: marked by a line.

    Scores with a long tail get an axis that is linear up to their middle, logarithmic beyond it.
    """
    figure, axes = _one_plot()
    count = min(_MOST_BINS, round(2 * np.sqrt(len(scores))))
    middle = float(np.median(np.abs(scores)))
    if middle > 0 and np.abs(scores).max() > _LONG_TAIL * middle:
        # Linear up to the middle and logarithmic beyond, or the tail would press all into a bin.
        axes.set_xscale("asinh", linear_width=middle)
        low, high = np.arcsinh(np.array([scores.min(), scores.max()]) / middle)
        bins = middle * np.sinh(np.linspace(low, high, count + 1))
    else:
        bins = np.histogram_bin_edges(scores, count)
    for label, shown, color in ((0, GOOD, _GOOD), (1, "defective", _DEFECTIVE)):
        values = scores[labels == label]
        share = np.full(len(values), 1 / max(len(values), 1))
        options: dict[str, Any] = {"bins": bins, "weights": share, "color": color}
        axes.hist(values, histtype="stepfilled", alpha=0.3, **options)
        axes.hist(
            values, histtype="step", linewidth=1.4, label=f"{shown} ({len(values)})", **options
        )
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linestyle="--", linewidth=1.0, label="threshold")
    axes.set(xlabel=name, ylabel="share of images")
    _legend_above(axes)
    return figure


@_styled
def roc_figure(
    labels: np.ndarray, scores: np.ndarray, *, name: str = "A", samples: int = 1000, seed: int = 0
) -> Figure:
    """The ROC curve of a score with its 95 % bootstrap band.

    Args:
        labels: int ``(n,)``, 1 for defective; both classes present.
        scores: float ``(n,)``.
        name: the score's, for the legend.
        samples: resamplings behind the band, see `daad_jax.metrics.bootstrap_roc`.
        seed: of the resampling.
    """
    figure, axes = _one_plot()
    rates, low, high = metrics.bootstrap_roc(labels, scores, samples=samples, seed=seed)
    axes.fill_between(rates, low, high, color=_GOOD, alpha=0.2, linewidth=0, label="95 % interval")
    auroc = metrics.image_auroc(labels, scores)
    axes.plot(*metrics.roc(labels, scores), color=_GOOD, label=f"{name}: {auroc:.3f}")
    axes.plot([0, 1], [0, 1], color=_INK, linestyle=":", linewidth=1.0)
    limits = (-0.01, 1.01)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=limits, ylim=limits)
    axes.legend(loc="lower right")
    return figure


@_styled
def curve_figure(
    steps: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    label: str,
    log: bool = False,
    limits: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """Metrics over training: means of neighbouring steps, and their range as a band.

    Args:
        steps: ``(n,)``, ascending.
        curves: by name, float ``(n,)``; what is not finite is left out.
        label: of the vertical axis.
        log: whether that axis is logarithmic.
        limits: of that axis, None to fit the values.
    """
    figure, axes = _one_plot()
    size = -(-len(steps) // _MAX_POINTS)
    starts = np.arange(0, len(steps), size)
    counts = np.diff(np.append(starts, len(steps)))
    middle = np.add.reduceat(steps, starts) / counts
    for name, values in curves.items():
        finite = np.isfinite(values)
        known = np.maximum(np.add.reduceat(finite, starts, dtype=np.int64), 1)
        mean = np.add.reduceat(np.where(finite, values, 0.0), starts) / known
        mean[~np.logical_or.reduceat(finite, starts)] = np.nan
        (line,) = axes.plot(middle, mean, label=name)
        if size > 1:
            low = np.fmin.reduceat(np.where(finite, values, np.nan), starts)
            high = np.fmax.reduceat(np.where(finite, values, np.nan), starts)
            axes.fill_between(middle, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    axes.set(xlabel="step", ylabel=label, yscale="log" if log else "linear")
    axes.set_ylim(*limits)
    _legend_above(axes)
    return figure


@_styled
def color_bar(scale: Scale) -> Figure:
    """The colours of `map_colors` with their values."""
    figure = Figure(figsize=(4.4, 0.55), layout="constrained")
    axes = figure.subplots()
    mappable = ScalarMappable(_norm(scale), _COLORMAP)
    low, high = scale
    # Evenly spaced on the square-root scale.
    ticks = [low + (high - low) * (part / 4) ** 2 for part in range(5)]
    figure.colorbar(
        mappable, cax=axes, orientation="horizontal", extend="max", ticks=ticks, format="%.2g"
    )
    return figure


def inline_svg(figure: Figure, label: str) -> str:
    """A figure as an SVG element to stand inside an HTML page.

    Its text takes the page's font and its ink the page's colour; equal figures give equal text.

    Args:
        figure: from this module.
        label: what it shows, for those who do not see it; different for each figure of a page.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Identifiers are made from the salt: two figures of a page must not share them.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
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
    """Float ``(H, W, C)`` in [-1, 1] to uint8 ``(H, W, 3)``, or ``(H, W)`` for one channel."""
    return squeeze(np.round(np.clip((reconstruction + 1.0) * 127.5, 0, 255)).astype(np.uint8))


def squeeze(image: np.ndarray) -> np.ndarray:
    """Drops the channel axis of a ``(H, W, 1)`` image."""
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _one_plot() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _legend_above(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.2,
    )
