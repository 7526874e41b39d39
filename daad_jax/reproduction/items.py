"""The paper's tables and figures as lists of runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from daad_jax.config import Config
from daad_jax.data.sources import cifar10, mnist
from daad_jax.data.sources.layout import PAPER_CATEGORIES
from daad_jax.reproduction.scales import (
    CIFAR10,
    DEFAULT,
    MNIST,
    MVTEC,
    RATES,
    SCALES,
    TEXTURES,
    build,
)

STAND_INS = ("magnetic_tile", "brick", "grass", "gravel")
"""Categories that the paper does not have: a set of tiles, and the textures of scikit-image."""
FEW = ("magnetic_tile", "gravel")
"""The stand-ins that Tables 4 and 5 and the figures take."""
_TEXTURES = ("brick", "grass", "gravel")
_CLASSES = {MNIST: mnist.CLASSES, CIFAR10: cifar10.CLASSES}


class Subject(NamedTuple):
    """What is normal in a run: the set of images, and a category or class of it."""

    images: str
    category: str


class Run(NamedTuple):
    """One training, which several tables and figures may show."""

    subject: Subject
    model: str
    config: Config


class Item(NamedTuple):
    """A table or figure: its title, its models, and the categories of MVTec AD that it shows.

    `seeds` says whether all seeds are run, or the first one alone.
    """

    title: str
    models: tuple[str, ...]
    categories: tuple[str, ...] = PAPER_CATEGORIES
    stand_ins: tuple[str, ...] = FEW
    seeds: bool = True


_FIVE = ("ae", "memae", "ae_skip", "daad", "daad_plus")
ITEMS = {
    "table1": Item(
        "Table 1: MVTec AD, compared with other methods",
        ("daad_plus", DEFAULT, "ae"),
        stand_ins=STAND_INS,
    ),
    "table2": Item("Table 2: MNIST and CIFAR-10", ("daad_plus", DEFAULT, "ae"), (), ()),
    "table3": Item(
        "Table 3: memory and skip connections",
        (*_FIVE, "memae_skip", DEFAULT),
        stand_ins=STAND_INS,
    ),
    "table4": Item("Table 4: division rates", (*(f"daad_r{rate}" for rate in RATES), "no_memory")),
    "table5": Item(
        "Table 5: losses, scores and generators",
        (
            *("ae", "ae_adv", "ae_adv_ali", "memae", "memae_adv", "memae_adv_ali"),
            *("daad", "daad_adv", "daad_plus"),
        ),
    ),
    "figure2": Item(
        "Figure 2: reconstructions of the models",
        ("ae", "ae_skip", "memae_2x", "memae_4x", "memae_8x", "memae", "memae_skip", "daad"),
        ("bottle", "grid"),
        seeds=False,
    ),
    "figure5": Item(
        "Figure 5: reconstructions at five division rates",
        tuple(f"daad_r{rate}" for rate in RATES),
        ("bottle", "grid"),
        seeds=False,
    ),
    "figure6": Item(
        "Figure 6: anomaly score against anomaly area",
        ("daad", "daad_plus"),
        ("leather",),
        seeds=False,
    ),
}
ALL = "all"


def subjects(item: str, scale: str, categories: Sequence[str] | None = None) -> list[Subject]:
    """What an item shows, whether its images are at hand or not.

    `categories` replaces the item's own categories; Table 2 has its classes in any case.
    """
    shown = ITEMS[item]
    if item == "table2":
        return [
            Subject(images, name)
            for images, names in _CLASSES.items()
            for name in names[: SCALES[scale].classes]
        ]
    stand_ins = shown.stand_ins if SCALES[scale].stand_ins else ()
    only = SCALES[scale].only
    own = [name for name in (*shown.categories, *stand_ins) if only is None or name in only]
    names = categories or own
    return [Subject(TEXTURES if name in _TEXTURES else MVTEC, name) for name in names]


def is_at_hand(subject: Subject, data: Path) -> bool:
    """Whether a subject's images are in the folder, or come with the package or by download."""
    return subject.images != MVTEC or (data / MVTEC / subject.category).is_dir()


def runs(
    item: str,
    scale: str,
    data: Path,
    seeds: Sequence[int],
    categories: Sequence[str] | None = None,
) -> list[Run]:
    """The runs of an item whose images are at hand, seed by seed.

    `data` is the folder that holds ``mvtec``, ``mnist`` and ``cifar10``; ``mnist`` and ``cifar10``
    are downloaded if they are not in it.
    """
    shown = ITEMS[item]
    found = []
    for seed in seeds if shown.seeds else seeds[:1]:
        for subject in subjects(item, scale, categories):
            if is_at_hand(subject, data):
                models = [name for name in shown.models if _is_run(item, name, scale, seed, seeds)]
                found += [_run(subject, name, scale, data, seed) for name in models]
    return found


def _is_run(item: str, model: str, scale: str, seed: int, seeds: Sequence[int]) -> bool:
    """The default has a preset for small images only; Table 2's control needs one seed."""
    if model == DEFAULT:
        return scale != "paper"
    return item != "table2" or model != "ae" or seed == seeds[0]


def _run(subject: Subject, model: str, scale: str, data: Path, seed: int) -> Run:
    config = build(scale, subject.images, model)
    config.data.category, config.seed = subject.category, seed
    if subject.images != TEXTURES:
        folder = data / subject.images
        config.data.root = str(folder) if folder.is_dir() else ""
    return Run(subject, model, config)


def ordered(several: Iterable[Iterable[Run]]) -> list[Run]:
    """The runs of several items without repetitions, with the first seed of all items first."""
    unique: dict[str, Run] = {}
    for found in several:
        for run in found:
            unique.setdefault(repr(run.config), run)
    return sorted(unique.values(), key=lambda run: run.config.seed)
