"""Evaluation of trained networks on the test images of one category."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from scipy.special import entr

from daad_jax.config import Config
from daad_jax.data import Dataset, ImageSet
from daad_jax.data.dataset import GOOD
from daad_jax.evaluation import baselines, diagnostics, metrics
from daad_jax.evaluation.pseudo_defects import MIN_SIZE, make_pseudo_defects
from daad_jax.models.build import Networks, build_discriminator
from daad_jax.runtime import sharding, signals
from daad_jax.runtime.files import replacing, write_json
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring import scores as scores_lib
from daad_jax.scoring.calibration import Calibration
from daad_jax.scoring.scorer import MemoryUse, Scorer, Variables
from daad_jax.scoring.scores import RawScores, Reference, ScoreInputs, compute_scores

EVALUATION_FILE = "evaluation.json"
SCORES_FILE = "scores.csv"
_SAMPLE = 256  # number of images for the reference maps and for the use of the memories

Named = dict[str, np.ndarray]


class Evaluation(NamedTuple):
    """The result of `evaluate`.

    Attributes:
        config: the run's config.
        summary: the contents of ``evaluation.json``: ``category``, ``setting``, ``step``,
            ``protocol``, counts, ``left_out`` (images with unreadable files), ``duplicates``
            (counts), ``masks`` (see `count_masks`), ``scores`` (for each the metrics of
            `daad_jax.evaluation.metrics.detection_metrics`), ``by_kind`` (image AUROC of each score
            for each kind of defect), ``pixel_auroc`` and ``pixel_auroc_relative``, ``decision``
            (the name of the score that decides), its ``threshold``, ``threshold_from`` (what it was
            made from and promises, as text) and its ``false_alarms`` (see
            `daad_jax.scoring.conformal.FalseAlarms`), ``controls`` (the baselines),
            ``made_with`` (the folders and the score settings, which may change after training),
            ``memory`` and ``pseudo`` (None for images below 16 px, or if none were held out).
            Without normal and defective test images there is no AUROC: ``scores`` holds no metrics,
            and ``by_kind`` and ``controls`` are empty.
        raw: maps, reconstructions and unscaled scores of the test images.
        scores: the scores of the test images by name, float64 ``(n,)`` each.
        calibration: scales and threshold, or None if no images were held out.
        reference: mean maps of normal training images.
        defective: bool ``(n,)``, the decisions for the test images; None without a threshold.
        scorer: the networks, for diagnostics; None if the evaluation was made without networks.
    """

    config: Config
    summary: dict[str, Any]
    raw: RawScores
    scores: Named
    calibration: Calibration | None
    reference: Reference | None = None
    defective: np.ndarray | None = None
    scorer: Scorer | None = None


def evaluate(
    config: Config,
    networks: Networks,
    variables: Variables,
    step: int,
    dataset: Dataset,
    *,
    mesh: Mesh | None = None,
    calibration: Calibration | None = None,
) -> Evaluation:
    """Scores the test images and computes metrics, baselines and diagnostics.

    `variables` are those of both networks, on the devices of `mesh`, which by default has all
    devices of this process. `step` is the number of updates that the networks were trained for.
    `calibration` is used as it is; by default one is made from the held-out images, if there are
    any. Raises NonFiniteError if a score is not finite.
    """
    mesh = mesh or sharding.make_mesh(jax.local_devices())
    scorer = Scorer(networks, variables, config, mesh)
    raw = scorer(dataset.test.images)
    normal = scorer(dataset.calibration.images) if len(dataset.calibration) else None
    reference = calibration_lib.fit_reference(
        scorer(evenly_spaced(dataset.train.images, _SAMPLE)), step
    )
    if calibration is None and normal is not None:
        calibration = calibration_lib.calibrate(normal, step, config.score, reference)
    defective = calibration_lib.decide(raw, config.score, calibration, reference)
    named = _test_scores(raw, config, calibration, reference)
    with signals.interruptible():
        summary = _summary(config, dataset, step, raw, named, calibration)
    relative = scores_lib.relative_map(raw.anomaly_map, reference.anomaly_map)
    summary["pixel_auroc_relative"] = _pixel_auroc(dataset, relative)
    used = dataset.test if len(dataset.test) else dataset.train
    sample, items = evenly_spaced(used.images, _SAMPLE), diagnostics.memory_items(scorer)
    summary["memory"] = {
        scale: summarize_use(use, len(sample)) | diagnostics.pairwise_cosine(items[scale])
        for scale, use in scorer.memory_use(sample).items()
    }
    summary["pseudo"] = None
    if normal is not None:
        inputs = calibration_lib.calibrated_inputs(normal, config.score, calibration, reference)
        if config.data.image_size >= MIN_SIZE:
            summary["pseudo"] = pseudo_summary(inputs, dataset, scorer)
    return Evaluation(config, summary, raw, named, calibration, reference, defective, scorer)


def write_evaluation(folder: Path, evaluation: Evaluation, dataset: Dataset) -> None:
    """Writes ``evaluation.json``, ``scores.csv``, ``reference.npz`` and ``calibration.json``.

    Each file is replaced as a whole. Without calibration there is no ``calibration.json``.
    """
    if evaluation.reference is not None:
        calibration_lib.save_reference(folder, evaluation.reference)
    if evaluation.calibration is not None:
        calibration_lib.save_calibration(folder, evaluation.calibration)
    write_scores(folder / SCORES_FILE, dataset, evaluation.scores, evaluation.defective)
    write_json(folder / EVALUATION_FILE, evaluation.summary)


def write_scores(path: Path, dataset: Dataset, named: Named, defective: np.ndarray | None) -> None:
    """Writes a CSV file with a row per test image: name, kind, label, scores and decision."""
    test = dataset.test
    columns = {"image": test.names, "kind": test.kinds, "label": test.labels}
    columns |= {name: [repr(float(value)) for value in values] for name, values in named.items()}
    if defective is not None:
        columns["defective"] = defective.astype(int)
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def evenly_spaced(images: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the images, evenly spaced."""
    return images[:: -(-len(images) // most)]


def pseudo_summary(
    evaluated: ScoreInputs, dataset: Dataset, score: Callable[[np.ndarray], RawScores]
) -> dict[str, Any]:
    """How well scores separate held-out normal images from pseudo-defects, without test images.

    `evaluated` holds the raw scores of the held-out images. Returns ``normal_images`` and
    ``defects`` (counts), ``by_kind`` (for each kind the image AUROC of each score against all
    normal images) and ``scores`` (for each score the mean over the kinds).
    """
    defects = make_pseudo_defects(dataset.calibration.images, dataset.train.images)
    good = compute_scores(evaluated)
    bad = compute_scores(evaluated._replace(raw=score(defects.images)))
    count, kinds = len(dataset.calibration), defects.kinds
    labels = np.repeat([0, 1], [count, len(kinds)])
    both = {name: np.concatenate([good[name], bad[name]]) for name in good}
    by_kind = _by_kind([GOOD] * count + kinds, labels, both)
    means = {name: float(np.mean([values[name] for values in by_kind.values()])) for name in good}
    counts = {"normal_images": count, "defects": len(kinds)}
    return counts | {"scores": means, "by_kind": by_kind}


def summarize_use(use: MemoryUse, images: int) -> dict[str, Any]:
    """Summarises how `images` images use one memory.

    Returns ``images`` and ``items``, the number of items of all banks. ``items_read`` and
    ``never_read`` count the items with and without a weight above zero in some read.
    ``effective_items`` is the exponential of the entropy of the items' shares in the total weight:
    the number of items if all are used alike, 0 without reads. ``active_items`` and ``entropy``
    (nats) are means over reads. ``reads`` and ``dead_reads`` are counts.
    """
    weight, summary = np.asarray(use.usage.weight), use.summary
    share = weight / max(float(np.sum(weight)), np.finfo(np.float64).tiny)
    read, blocks = int(np.sum(np.asarray(use.usage.reads) > 0)), float(use.reads)
    return {
        "images": images,
        "items": len(share),
        "items_read": read,
        "never_read": len(share) - read,
        "effective_items": float(np.exp(np.sum(entr(share)))) if read else 0.0,
        "active_items": float(summary.active_items) / blocks,
        "entropy": float(summary.entropy) / blocks,
        "reads": int(blocks),
        "dead_reads": int(summary.dead),
    }


def _test_scores(
    raw: RawScores, config: Config, calibration: Calibration | None, reference: Reference
) -> Named:
    """Scores of the test images, with A by `score.protocol` and, if possible, by the other one."""
    scales = {"paper": scores_lib.fit_scales(raw)} if len(raw.reconstruction_score) else {}
    if calibration is not None:
        scales["calibrated"] = calibration.scales
    deviations = {} if calibration is None else calibration.deviations
    return compute_scores(
        ScoreInputs(raw, config.score, scales, config.score.protocol, reference, deviations)
    )


def _pixel_auroc(dataset: Dataset, maps: np.ndarray) -> float | None:
    masks = dataset.test.masks
    return None if masks is None else metrics.pixel_auroc(masks, maps)


def _summary(
    config: Config,
    dataset: Dataset,
    step: int,
    raw: RawScores,
    named: Named,
    calibration: Calibration | None,
) -> dict[str, Any]:
    test, labels = dataset.test, dataset.test.labels
    samples, seed = config.score.bootstrap_samples, config.seed
    graded = metrics.both_classes(labels)
    return {
        "category": dataset.category,
        "setting": config.setting,
        "step": step,
        "protocol": config.score.protocol,
        "train_images": len(dataset.train),
        "calibration_images": len(dataset.calibration),
        "test_good": int(np.sum(labels == 0)),
        "test_defective": int(np.sum(labels == 1)),
        "left_out": dataset.left_out,
        "duplicates": {name: len(pairs) for name, pairs in dataset.duplicates._asdict().items()},
        "masks": count_masks(test),
        "scores": {
            name: metrics.detection_metrics(labels, values, samples=samples, seed=seed)
            for name, values in named.items()
        },
        "by_kind": _by_kind(test.kinds, labels, named) if graded else {},
        "pixel_auroc": _pixel_auroc(dataset, raw.anomaly_map),
        "decision": config.score.decision,
        **_threshold(calibration),
        "made_with": _made_with(config),
        "controls": baselines.evaluate_baselines(
            dataset.train, test, build_discriminator(config), raw.reconstruction
        )
        if graded
        else {},
    }


def _threshold(calibration: Calibration | None) -> dict[str, Any]:
    if calibration is None:
        return {"threshold": None, "threshold_from": None, "false_alarms": None}
    return {
        "threshold": calibration.threshold,
        "threshold_from": calibration.describe(),
        "false_alarms": calibration.false_alarms._asdict(),
    }


def _made_with(config: Config) -> dict[str, Any]:
    folders = config.data.located()
    made_with = {"data.root": folders.root, "data.test_root": folders.test_root}
    return made_with | {f"score.{name}": value for name, value in vars(config.score).items()}


def count_masks(test: ImageSet) -> dict[str, int] | None:
    """Counts masks at the size at which pixel scores are computed; None without masks.

    Returns ``images`` (defective ones, which have a mask), ``empty`` (masks without a defect) and
    ``defective_pixels``.
    """
    if test.masks is None:
        return None
    areas = test.masks[test.labels == 1].sum(axis=(1, 2))
    counts = {"images": areas.size, "empty": np.sum(areas == 0), "defective_pixels": areas.sum()}
    return {name: int(count) for name, count in counts.items()}


def _by_kind(kinds: list[str], labels: np.ndarray, named: Named) -> dict[str, dict[str, float]]:
    """Image AUROC of each score for each kind of defect against all normal images."""
    result = {}
    for kind in sorted({kind for kind, label in zip(kinds, labels, strict=True) if label}):
        chosen = np.array([name == kind for name in kinds]) | (labels == 0)
        result[kind] = {
            name: metrics.image_auroc(labels[chosen], values[chosen])
            for name, values in named.items()
        }
    return result
