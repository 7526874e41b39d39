import re

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from daad_jax.evaluation import metrics
from daad_jax.reports import plots

RNG = np.random.default_rng(3)
LABELS = np.repeat([0, 1], 30)
SCORES = np.round(RNG.normal(size=60) + LABELS, 1)  # rounding makes ties


def test_color_scale_is_one_for_all_maps():
    maps = np.stack([np.full((8, 8), value) for value in np.linspace(0, 1, 1001)])
    low, high = plots.color_scale(maps)
    assert low == 0.0
    assert high == pytest.approx(0.995, abs=2e-3)
    assert plots.color_scale(np.zeros((2, 4, 4)))[1] > 0


def test_map_colors_keep_to_the_scale():
    ramp = np.array([[0.0, 0.5, 1.0, 7.0]])
    colors = plots.map_colors(ramp, (0.0, 1.0))
    assert colors.shape == (1, 4, 3)
    assert colors.dtype == np.uint8
    np.testing.assert_array_equal(colors[0, 2], colors[0, 3])
    assert len(np.unique(colors[0, :3], axis=0)) == 3
    # The same value has the same colour whatever else is in its map.
    np.testing.assert_array_equal(plots.map_colors(ramp[:, :2], (0.0, 1.0)), colors[:, :2])


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1), (40, 30, 3)])
def test_heat_map_lies_over_the_image(shape):
    image = np.full(shape, 90, np.uint8)
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[:, 4:] = 2.0
    heat = plots.heat_map(image, anomaly_map, (0.0, 1.0))
    assert heat.shape == (40, 30, 3)
    assert heat.dtype == np.uint8
    np.testing.assert_array_equal(heat[:, 0], 90)
    top = plots.map_colors(np.ones((1, 1)), (0.0, 1.0))[0, 0]
    assert np.abs(heat[20, -1].astype(int) - top).max() < 40


def test_example_figure_does_not_stretch_its_colours():
    image, reconstruction = np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 1), np.float32)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    for height in (0.1, 5.0):
        anomaly_map = np.full((8, 8), height)
        figure = plots.example_figure(
            image, reconstruction, anomaly_map, scale=(0.0, 2.0), mask=mask
        )
        shown = figure.axes[2]
        assert shown.images[0].get_clim() == (0.0, 2.0)
        (contour,) = shown.collections
        assert contour.get_paths()[0].get_extents().bounds == (2.5, 1.5, 3.0, 3.0)


def test_score_histogram_shows_shares_of_each_class():
    labels = np.array([0] * 10 + [1] * 40)
    scores = np.concatenate([np.zeros(10), np.ones(40)])
    axes = plots.score_histogram(labels, scores, threshold=0.5).axes[0]
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    assert [outline.get_xy()[:, 1].max() for outline in outlines] == pytest.approx([1, 1])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "good (10)",
        "defective (40)",
        "threshold",
    ]
    assert list(axes.lines[0].get_xdata()) == [0.5, 0.5]


def test_roc_figure_draws_the_curve_and_its_band():
    axes = plots.roc_figure(LABELS, SCORES, samples=200, seed=1).axes[0]
    false_positives, true_positives, _ = roc_curve(LABELS, SCORES)
    np.testing.assert_allclose(axes.lines[0].get_xdata(), false_positives)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), true_positives)
    rates, low, high = metrics.bootstrap_roc(LABELS, SCORES, samples=200, seed=1)
    drawn = axes.collections[0].get_paths()[0].get_extents()
    assert (drawn.y0, drawn.y1) == pytest.approx((low.min(), high.max()))
    assert (drawn.x0, drawn.x1) == (rates[0], rates[-1])


def test_bootstrap_roc_matches_resampling_with_sklearn():
    rng = np.random.default_rng(5)
    rates = np.linspace(0, 1, 11)
    curves = []
    for _ in range(1500):
        chosen = np.concatenate([rng.integers(0, 30, 30), rng.integers(30, 60, 30)])
        x, y, _ = roc_curve(LABELS[chosen], SCORES[chosen], drop_intermediate=False)
        curves.append(np.interp(rates, x, y))
    found = metrics.bootstrap_roc(LABELS, SCORES, samples=1500, seed=0, points=11)
    np.testing.assert_array_equal(found[0], rates)
    np.testing.assert_allclose(found[1:], np.quantile(curves, [0.025, 0.975], axis=0), atol=0.05)


def test_curve_figure_thins_out_by_means():
    steps = np.arange(1, 1001)
    values = np.where(steps % 2, 0.0, 2.0)
    values[:4] = np.nan
    axes = plots.curve_figure(steps, {"loss": values}, label="loss").axes[0]
    (line,) = axes.lines
    assert len(line.get_xdata()) == 250
    assert np.isnan(line.get_ydata()[0])
    np.testing.assert_allclose(line.get_ydata()[1:], 1.0)
    np.testing.assert_allclose(line.get_xdata()[:2], [2.5, 6.5])
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (0.0, 2.0)


def test_curve_figure_keeps_the_last_steps_and_shows_a_single_one():
    steps = np.arange(1, 1003)
    (line,) = plots.curve_figure(steps, {"loss": steps}, label="loss").axes[0].lines
    assert len(line.get_xdata()) == 201
    assert line.get_xdata()[-1] == line.get_ydata()[-1] == 1001.5
    (line,) = plots.curve_figure(steps[:1], {"loss": steps[:1]}, label="loss").axes[0].lines
    assert line.get_marker() == "."


@pytest.mark.parametrize("sign", [1, -1])
def test_score_histogram_of_a_long_tail_has_ticks_apart(sign):
    scores = sign * np.exp(np.linspace(-3, 7, 60))
    axes = plots.score_histogram(LABELS, scores).axes[0]
    assert axes.get_xscale() == "asinh"
    assert list(axes.get_xticks()) == ([0.0, 10.0, 100.0, 1000.0] if sign > 0 else [0.0])
    outlines = [patch.get_xy()[:, 0] for patch in axes.patches]
    assert min(one.min() for one in outlines) == pytest.approx(scores.min())
    assert max(one.max() for one in outlines) == pytest.approx(scores.max())


def test_inline_svg_repeats_and_stands_alone():
    def draw(label):
        return plots.inline_svg(plots.roc_figure(LABELS, SCORES, samples=20), label)

    first = draw('a "<b>" label')
    assert first == draw('a "<b>" label')
    assert first.startswith('<svg role="img" aria-label="a &quot;&lt;b&gt;&quot; label"')
    assert "://" not in first
    names = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, draw("another"))]
    assert names[0]
    assert not names[0] & names[1]
    assert names[0] >= set(re.findall(r'(?:url\(|href=")#([\w-]+)', first))


def test_bootstrap_roc_calls_equal_scores_together():
    rates, low, high = metrics.bootstrap_roc(LABELS, np.ones(60), samples=20, seed=0)
    np.testing.assert_allclose(low, rates)
    np.testing.assert_allclose(high, rates)


def test_area_figure_has_good_images_left_of_all_defects():
    shares = np.array([0.0, 0.0, 0.004, 0.5])
    scores = np.array([0.1, 0.2, 0.3, 0.4])
    (axes,) = plots.area_figure(shares, scores, name="R", threshold=0.25).axes
    good, bad = (points.get_offsets() for points in axes.collections)
    np.testing.assert_allclose(bad, [[0.4, 0.3], [50.0, 0.4]])
    np.testing.assert_allclose(good[:, 1], [0.1, 0.2])
    divider, threshold = axes.lines
    assert good[:, 0].max() < divider.get_xdata()[0] < 0.4
    assert threshold.get_ydata()[0] == 0.25
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10"]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["good (2)", "defective (2)", "threshold"]


def test_area_figure_leaves_out_defects_of_unknown_area():
    (axes,) = plots.area_figure(np.array([0.0, np.nan, 0.5]), np.array([0.1, 0.2, 0.3])).axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["good (1)", "defective (1)"]


@pytest.mark.parametrize("shares", [[1.0], [0.0, 0.01], [1e-6, 0.0], [0.2, 0.2]])
def test_area_figure_of_few_images(shares):
    values = np.arange(1.0, 1.0 + len(shares))
    (axes,) = plots.area_figure(np.array(shares), values).axes
    assert sum(len(points.get_offsets()) for points in axes.collections) == len(shares)
