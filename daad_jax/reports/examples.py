"""The report's section of example images: input, reconstruction and anomaly map."""

from collections.abc import Sequence

import numpy as np
from skimage.measure import find_contours

from daad_jax.data import ImageSet
from daad_jax.data.dataset import GOOD
from daad_jax.data.frame import picture_box
from daad_jax.data.masks import shrink
from daad_jax.evaluation.evaluate import Evaluation, PseudoExamples
from daad_jax.evaluation.picking import Example, pick_examples
from daad_jax.reports import page, plots
from daad_jax.reports.page import Html, element
from daad_jax.reports.plots import Scale
from daad_jax.scoring.scores import score_label

_MOST_KINDS = 24
_MOST_EXTREMES = 6


def extreme_positions(picked: Sequence[Example]) -> list[int]:
    """The positions of the first few images that are not typical."""
    return [one.position for one in picked if one.role != "typical"][:_MOST_EXTREMES]


def pseudo_section(shown: PseudoExamples) -> Html:
    """Renders the section of pseudo-defects, which stands in for defective test images."""
    found = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in shown.found.items())
    note = (
        "There are no defective test images. These defects are artificial, put into held-out "
        f"normal images. The share of them that is found, that is called defective: {found}. "
    )
    kinds, score = shown.images.kinds, shown.evaluation.scores[shown.evaluation.summary["decision"]]
    picked = pick_examples(kinds, score)
    return section(shown.evaluation, shown.images, picked, "Artificial defects", note)


def section(
    evaluation: Evaluation,
    test: ImageSet,
    picked: Sequence[Example],
    title: str = "Examples",
    begin: str = "",
) -> Html:
    """Renders the section for the images that `pick_examples` returned.

    `begin` is put before the note that explains the images.
    """
    scale = plots.color_scale(evaluation.maps)
    label = score_label(evaluation.summary["decision"], evaluation.summary["protocol"])
    note = (
        f"{begin}The worst, typical (median) and best image of each kind, ranked by {label}. The "
        "worst good image has the highest score, the worst defective image the lowest."
    )
    if test.masks is not None:
        note += " The line on a map is the outline of the mask."
    bar = (
        f"Colours of the anomaly map ({evaluation.config.score.map}), the same for all images: "
        f"from 0 to {scale[1]:.3g}, the {100 * plots.SCALE_QUANTILE:g} % quantile of all test "
        "pixels, on a square-root scale."
    )
    kinds = list(dict.fromkeys(example.kind for example in picked))
    parts = [page.note(note), page.plot(plots.color_bar(scale), bar, class_="plot bar")]
    for kind in kinds[:_MOST_KINDS]:
        cards = [_card(evaluation, test, one, scale) for one in picked if one.kind == kind]
        parts += [element("h3", kind), page.group("examples", cards)]
    if len(kinds) > _MOST_KINDS:
        parts.append(page.note(f"The first {_MOST_KINDS} of {len(kinds)} kinds are shown."))
    return page.section(title, *parts)


def _card(evaluation: Evaluation, test: ImageSet, example: Example, scale: Scale) -> Html:
    index, raw, summary = example.position, evaluation.raw, evaluation.summary
    name = test.names[index]
    path = ""
    if test.masks is not None:
        mask, frame = np.asarray(test.masks[index]), np.zeros(test.images.shape[1:3], bool)
        box = picture_box(mask.shape, evaluation.config.data)
        frame[box.region] = shrink(mask, (box.height, box.width))
        path = outline(frame)
    tiles = [
        page.tile(plots.squeeze(np.asarray(test.images[index])), "input", name),
        page.tile(plots.to_pixels(raw.reconstruction[index]), "reconstruction", name),
        page.tile(plots.map_colors(evaluation.maps[index], scale), "anomaly map", name, path),
    ]
    shown = dict.fromkeys([summary["decision"], "A", "R", "L"])
    values = [
        f"{score_label(score, summary['protocol'])} {evaluation.scores[score][index]:.4g}"
        for score in shown
        if score in evaluation.scores
    ]
    if evaluation.defective is not None:
        values.append(f"decision: {'defective' if evaluation.defective[index] else GOOD}")
    return page.example(tiles, example.role, ", ".join(values), name)


def outline(mask: np.ndarray) -> str:
    """The outline of a bool ``(H, W)`` mask as the data of an SVG path, in pixels."""
    padded = np.pad(mask, 1).astype(np.float32)
    # Contours have the coordinates of pixel centres, moved by the padding.
    lines = [contour - 0.5 for contour in find_contours(padded, 0.5)]
    return "".join("M" + "L".join(f"{x:g} {y:g}" for y, x in line) + "Z" for line in lines)
