"""Reconstructions of settings side by side, as in Figures 2 and 5 of the paper.

``python -m benchmarks.reconstructions overfit`` trains every setting and division rate on eight
crops of the embedded gravel and shows what each makes of these and of other images.
``python -m benchmarks.reconstructions draw --out=FILE.png WORKDIR ...`` draws what trained runs of
one category make of its test images.

``docs/images/overfit.png`` is the figure of ``overfit --steps=800``, seed 0, some 8 minutes of
processor time on a shared x86-64 CPU machine.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from scipy import ndimage

import daad_jax
from daad_jax import config as config_lib
from daad_jax.cli import guarded
from daad_jax.cli.flags import parse_flags
from daad_jax.config import Config
from daad_jax.data import Dataset, ImageSet, load_dataset
from daad_jax.errors import ConfigError
from daad_jax.evaluation.picking import middle_images
from daad_jax.reports import plots
from daad_jax.reports.plots import Cell
from daad_jax.train.metrics_log import read_metrics

OVERFIT_IMAGES = 8
CATEGORY, FOREIGN = "gravel", "brick"
DEFECT = "patch"
TEMPERATURE = 0.05


class Case(NamedTuple):
    """One row of the overfitting table; `rate` is r_h and r_w, None where the setting has none."""

    setting: str
    rate: int | None = None
    temperature: float = TEMPERATURE

    @property
    def title(self) -> str:
        """What heads its column."""
        rate = "" if self.rate is None else f"\nr = {self.rate}"
        temperature = "" if self.temperature == TEMPERATURE else f", T = {self.temperature:g}"
        return self.setting + rate + temperature

    @property
    def cells(self) -> list[str]:
        """What begins its row of the table."""
        if not self.setting.startswith(("memae", "daad")):
            return [self.setting, "", ""]
        return [self.setting, str(self.rate or "pixel"), f"{self.temperature:g}"]


CASES = (
    Case("ae"),
    Case("ae_skip"),
    Case("memae"),
    Case("memae_skip"),
    *(Case("daad", rate) for rate in (1, 2, 4, 8, 16)),
    Case("daad_plus", 8),
    Case("daad", 1, 1.0),
    Case("daad", 8, 1.0),
)


def main(argv: Sequence[str]) -> None:
    """Runs the command that the first argument names.

    Raises:
        UserError: for anything that the user can mend.
    """
    commands: dict[str, Callable[[Sequence[str]], None]]
    commands = {"overfit": overfit_main, "draw": draw_main}
    name = argv[1] if len(argv) > 1 else ""
    if name not in commands:
        raise ConfigError(f"{name or 'command'}: give one of {', '.join(commands)} first")
    commands[name]([argv[0], *argv[2:]])


def overfit_main(argv: Sequence[str]) -> None:
    """``overfit``: trains every case on a few crops, prints a table and draws a figure."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", "overfit.png", "The figure's file.", flag_values=values)
    flags.DEFINE_string("workdir", "runs/overfit", "Folder for the runs.", flag_values=values)
    flags.DEFINE_integer("steps", 1200, "Updates of each run.", flag_values=values)
    flags.DEFINE_list("only", [], "Settings to run, all without it.", flag_values=values)
    parse_flags(values, argv)
    cases = [case for case in CASES if not values.only or case.setting in values.only]
    if not cases:
        raise ConfigError(f"--only: no {values.only}; known: {', '.join(config_lib.SETTINGS)}")
    dataset, groups = _overfit_images()
    print(f"| setting | r | T | L_rec in training | {' | '.join(f'R {name}' for name in groups)} |")
    print(f"|---|---|---|---{'|---' * len(groups)}|")
    constant = [_own_mean_error(images) for images in groups.values()]
    print(_row(["each image's mean grey", "", "", ""], constant), flush=True)
    columns = [("input", [Cell(_pixels(images[0])) for images in groups.values()])]
    for case in cases:
        config = _overfit_config(case, values.steps)
        workdir = Path(values.workdir) / f"{case.title}-{values.steps}".replace("\n", " ")
        daad_jax.fit(config, dataset, workdir=workdir, log=lambda _: None)
        loss = float(read_metrics(workdir)["loss/rec"][-1])
        detector = daad_jax.load(workdir)
        results = [detector.score(images) for images in groups.values()]
        errors = [float(result.reconstruction_score.mean()) for result in results]
        print(_row([*case.cells, f"{loss:.4f}"], errors), flush=True)
        columns.append((case.title, [_rebuilt(result) for result in results]))
    plots.save_small(Path(values.out), plots.grid_figure(columns, list(groups)))


def draw_main(argv: Sequence[str]) -> None:
    """``draw``: input, reconstruction and anomaly map of test images by each of some runs."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", "reconstructions.png", "The figure's file.", flag_values=values)
    workdirs = [Path(name) for name in parse_flags(values, argv, positional=True)]
    if not workdirs:
        raise ConfigError("WORKDIR: give the folders of one or more runs")
    detectors = [daad_jax.load(workdir) for workdir in workdirs]
    configs = [detector.config for detector in detectors]
    test = _shared_test_set(configs)
    results = [detector.score(test.images) for detector in detectors]
    chosen = middle_images(test.kinds, [result.reconstruction_score for result in results])
    columns = [("input", [cell for index in chosen for cell in _input_cells(test, index)])]
    for title, result in zip(run_titles(configs), results, strict=True):
        scale = plots.color_scale(result.anomaly_map)
        columns.append((title, [cell for i in chosen for cell in _run_cells(result, i, scale)]))
    rows = [label for index in chosen for label in (test.kinds[index], "map")]
    plots.save_small(Path(values.out), plots.grid_figure(columns, rows))
    print("\n".join(test.names[index] for index in chosen))


def run_titles(configs: Sequence[Config]) -> list[str]:
    """Each run's setting, and the fields in which it differs from others of that setting."""
    flat = [config_lib.flatten(config_lib.to_dict(config)) for config in configs]
    titles = []
    for own in flat:
        peers = [other for other in flat if other["setting"] == own["setting"]]
        differing = [path for path in own if any(other[path] != own[path] for other in peers)]
        lines = [f"{path.split('.')[-1]} {_brief(own[path])}" for path in differing]
        titles.append("\n".join([own["setting"], *lines]))
    return titles


def _overfit_images() -> tuple[Dataset, dict[str, np.ndarray]]:
    """The data set that is overfitted, and groups of images by name: uint8 ``(n, H, W, 1)``."""
    config = _overfit_config(Case("ae"), 1)
    dataset = load_dataset(config.data, CATEGORY)
    own, foreign = dataset.test, load_dataset(config.data, FOREIGN).test
    train = dataset.train.take(slice(OVERFIT_IMAGES))
    noise = np.random.default_rng(0).integers(0, 256, train.images.shape, dtype=np.uint8)
    groups = {
        "trained on": train.images,
        "other good": own.images[own.labels == 0],
        "defective": own.images[np.array(own.kinds) == DEFECT],
        FOREIGN: foreign.images[foreign.labels == 0],
        "noise": noise,
    }
    return dataclasses.replace(dataset, train=train), groups


def _overfit_config(case: Case, steps: int) -> Config:
    config = config_lib.from_setting(case.setting)
    values: dict[str, Any] = {
        "data.source": "textures",
        "data.category": CATEGORY,
        "data.image_size": 64,
        "data.channels": 1,
        "data.flip_horizontal": False,
        "data.flip_vertical": False,
        "model.widths": (32, 64),
        "memory.items": 100,
        "memory.temperature": case.temperature,
        "discriminator.width": 16,
        "discriminator.max_width": 128,
        "train.steps": steps,
        "train.batch_size": OVERFIT_IMAGES,
        "train.learning_rate": 1e-3,
        "train.checkpoint_every": steps,
    }
    if case.rate is not None:
        values["memory.division_rates"] = (case.rate, case.rate, 1)
    for path, value in values.items():
        config_lib.set_field(config, path, value)
    daad_jax.check(config)
    return config


def _shared_test_set(configs: Sequence[Config]) -> ImageSet:
    """The test images of the runs, at the first one's size.

    Raises:
        ConfigError: if the runs are not of one category.
    """
    first = configs[0]
    for path in ("data.source", "data.root", "data.name", "data.category"):
        found = {config_lib.flatten(config_lib.to_dict(config))[path] for config in configs}
        if len(found) > 1:
            raise ConfigError(f"{path}: the runs must share it, found {sorted(map(str, found))}")
    return load_dataset(first.data, first.data.category).test


def _own_mean_error(images: np.ndarray) -> float:
    return float(np.mean(np.var(images / 127.5, axis=(1, 2, 3))))


def _row(cells: Sequence[str], errors: Sequence[float]) -> str:
    texts = [*cells, *(f"{error:.4f}" for error in errors)]
    return f"| {' | '.join(texts)} |"


def _pixels(image: np.ndarray) -> np.ndarray:
    return plots.squeeze(np.asarray(image))


def _rebuilt(result: daad_jax.Result, index: int = 0) -> Cell:
    score = result.reconstruction_score[index]
    return Cell(plots.to_pixels(result.reconstruction[index]), f"{score:.4f}")


def _input_cells(test: ImageSet, index: int) -> list[Cell]:
    """The image, and the image with its defect's outline where there is a mask."""
    pixels = _pixels(test.images[index])
    outlined = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels.copy()
    if test.masks is not None:
        mask = test.masks[index]
        outlined[mask & ~ndimage.binary_erosion(mask)] = (34, 211, 238)
    return [Cell(pixels), Cell(outlined)]


def _run_cells(result: daad_jax.Result, index: int, scale: plots.Scale) -> list[Cell]:
    return [_rebuilt(result, index), Cell(plots.map_colors(result.anomaly_map[index], scale))]


def _brief(value: object) -> str:
    if isinstance(value, list):
        return f"({', '.join(_brief(item) for item in value)})"
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv)))
