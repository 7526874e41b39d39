"""The paper's Figures 2, 5 and 6, drawn from trained runs."""

import csv
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from daad_jax.data import ImageSet, load_dataset
from daad_jax.data.dataset import GOOD
from daad_jax.errors import DataError, UserError, shown
from daad_jax.evaluation.evaluate import SCORES_FILE
from daad_jax.evaluation.localization import defective_shares, mask_areas
from daad_jax.evaluation.metrics import image_auroc
from daad_jax.evaluation.picking import middle_images
from daad_jax.reports import plots
from daad_jax.reports.document import Block, Picture, Table
from daad_jax.reports.plots import Cell
from daad_jax.reproduction.items import ITEMS, Subject
from daad_jax.reproduction.results import Results
from daad_jax.reproduction.scales import TITLES
from daad_jax.scoring.detector import load
from daad_jax.workdir.run import load_config

IMAGES = "images"
"""The folder of the pictures, in that of the pages."""
_MOST_KINDS = 4  # rows of a grid
_DPI = 90
_BINS = (0.0, 0.5, 2.0, 20.0, 100.0)  # per cent of the picture


class Trained(NamedTuple):
    """A finished run: what it is called, its folder, and its scores of the test images by name."""

    title: str
    folder: Path
    scores: dict[str, np.ndarray]


def reconstructions(
    item: str, results: Results, subjects: Sequence[Subject], folder: Path, seed: int
) -> list[Block]:
    """Figure 2 or 5: pictures, and what each model makes of them.

    Of each kind of picture it shows the one that stands in the middle by R over all models. The
    pictures are written into `folder`.
    """

    def draw(subject: Subject, trained: Sequence[Trained]) -> list[Block]:
        test = _test_images(trained[0])
        chosen = middle_images(test.kinds, [one.scores["R"] for one in trained])[:_MOST_KINDS]
        columns = [("input", [Cell(_outlined(test, index)) for index in chosen])]
        for one in trained:
            rebuilt = load(one.folder).score(test.images[chosen]).reconstruction
            errors = [f"R {one.scores['R'][index]:.4f}" for index in chosen]
            cells = [Cell(plots.to_pixels(a), b) for a, b in zip(rebuilt, errors, strict=True)]
            columns.append((one.title, cells))
        file = f"{IMAGES}/{item}_{subject.category}.png"
        figure = plots.grid_figure(columns, [test.kinds[index] for index in chosen])
        plots.save_small(folder / file, figure)
        caption = (
            f"`{subject.category}`, seed {seed}: of each kind the test picture in the middle by R, "
            "defects outlined, and its reconstruction by each model with R above it."
        )
        return [Picture(file, caption)]

    return _each(item, results, subjects, seed, draw)


def figure6(results: Results, subjects: Sequence[Subject], folder: Path, seed: int) -> list[Block]:
    """Figure 6: R and A of DAAD and DAAD+ against the share of the picture that is defective."""

    def draw(subject: Subject, trained: Sequence[Trained]) -> list[Block]:
        test = _test_images(trained[0])
        if test.masks is None or not mask_areas(test.masks).any():
            return [f"`{subject.category}`: has no masks, so areas are not known."]
        shares = defective_shares(test.masks, test.labels)
        drawn = [(one, name) for one in trained for name in _named(one)]
        panels = [(f"{one.title}: {name}", one.scores[name]) for one, name in drawn]
        file = f"{IMAGES}/figure6_{subject.category}.png"
        figures = [plots.area_figure(shares, scores, name=title) for title, scores in panels]
        plots.save_small(folder / file, *figures, dpi=_DPI)
        caption = (
            f"`{subject.category}`, seed {seed}: score against the defective share of the picture. "
            "A of DAAD is its R."
        )
        return [Picture(file, caption), _by_area(test, shares, panels)]

    return _each("figure6", results, subjects, seed, draw)


def _each(
    item: str,
    results: Results,
    subjects: Sequence[Subject],
    seed: int,
    draw: Callable[[Subject, Sequence[Trained]], list[Block]],
) -> list[Block]:
    """What `draw` makes of each subject with finished runs, and what is missing or damaged."""
    blocks: list[Block] = []
    for subject in subjects:
        try:
            trained, missing = _trained(results, item, subject, seed)
            blocks += _missing(results, subject, missing)
            if trained:
                blocks += draw(subject, trained)
        except UserError as error:
            blocks.append(f"`{subject.category}`: cannot be drawn: {shown(str(error))}")
    return blocks


def _named(trained: Trained) -> list[str]:
    """R and, with a discriminator, A."""
    return ["R", "A"] if "L" in trained.scores else ["R"]


def _by_area(test: ImageSet, shares: np.ndarray, panels: Sequence[tuple[str, np.ndarray]]) -> Table:
    """The AUROC of the defects of each range of areas against all good pictures."""
    good = test.labels == 0
    header, rows = ["defective share", "pictures", *(title for title, _ in panels)], []
    for low, high in itertools.pairwise(_BINS):
        bad = (test.labels == 1) & (100 * shares > low) & (100 * shares <= high)
        if bad.any():
            cells = [
                f"{image_auroc(test.labels[good | bad], scores[good | bad]):.3f}"
                for _, scores in panels
            ]
            rows.append([f"{low:g} to {high:g} %", str(int(bad.sum())), *cells])
    return Table(header, rows)


def _trained(
    results: Results, item: str, subject: Subject, seed: int
) -> tuple[list[Trained], list[str]]:
    """The runs of a figure whose folders are there, and the titles of those that are missing."""
    found, missing = [], []
    for model in ITEMS[item].models:
        folder = results.folder(subject, model, seed)
        if folder is None or not (folder / SCORES_FILE).is_file():
            missing.append(TITLES[model])
        else:
            found.append(Trained(TITLES[model], folder, read_scores(folder)))
    return found, missing


def _missing(results: Results, subject: Subject, titles: Sequence[str]) -> list[Block]:
    if not results.plans(subject):
        return [f"`{subject.category}`: not on disk."]
    return [f"`{subject.category}`: not run: {', '.join(titles)}."] if titles else []


def read_scores(folder: Path) -> dict[str, np.ndarray]:
    """The scores of a run's test images by name, float64 ``(n,)``, and ``label``, int ``(n,)``.

    Raises DataError if the file is missing or damaged.
    """
    path = folder / SCORES_FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in rows[0] if name not in ("image", "kind", "label", "defective")]
        scores = {name: np.array([float(row[name]) for row in rows]) for name in names}
        return scores | {"label": np.array([int(row["label"]) for row in rows])}
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); evaluate the run again") from error


def _test_images(trained: Trained) -> ImageSet:
    config = load_config(trained.folder)
    return load_dataset(config.data, config.data.category).test


def _outlined(test: ImageSet, index: int) -> np.ndarray:
    """A test image with its defect's outline where there is a mask."""
    pixels = plots.squeeze(np.asarray(test.images[index]))
    outlined = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels.copy()
    if test.masks is not None and test.kinds[index] != GOOD:
        mask = _resized(np.asarray(test.masks[index]), pixels.shape[:2])
        outlined[mask & ~ndimage.binary_erosion(mask)] = (34, 211, 238)
    return outlined


def _resized(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask at another size: nearest pixels."""
    rows, columns = (
        (np.arange(wanted) + 0.5) * has // wanted
        for wanted, has in zip(shape, mask.shape, strict=True)
    )
    return mask[rows.astype(int)[:, None], columns.astype(int)]
