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
from daad_jax.data import Dataset
from daad_jax.data.dataset import GOOD
from daad_jax.evaluation import baselines, diagnostics, metrics
from daad_jax.evaluation.pseudo_defects import make_pseudo_defects
from daad_jax.models.build import Networks, image_shape
from daad_jax.runtime import sharding, signals
from daad_jax.runtime.files import replacing, write_json
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring.calibration import Calibration
from daad_jax.scoring.scorer import MemoryUse, Scorer, Variables
from daad_jax.scoring.scores import (
    RawScores,
    Reference,
    ScoreInputs,
    compute_scores,
    fit_scales,
    relative_map,
)

EVALUATION_FILE = "evaluation.json"
SCORES_FILE = "scores.csv"
_SAMPLE = 256  # images that the reference maps and the use of the memories are computed from

Named = dict[str, np.ndarray]


class Evaluation(NamedTuple):
    """The result of `evaluate`.

    Attributes:
        config: the run's config.
        summary: the contents of ``evaluation.json``: ``category``, ``setting``, ``step``,
            ``protocol``, counts, ``left_out`` (images with unreadable files), ``duplicates``
            (counts), ``scores`` (for each the metrics of
            `daad_jax.evaluation.metrics.detection_metrics`), ``by_kind`` (image AUROC of each score
            for each kind of defect), ``pixel_auroc`` and ``pixel_auroc_relative``, ``decision``
            (the name of the score that decides), its ``threshold``, ``controls`` (the baselines),
            ``memory`` and ``pseudo`` (None if no images were held out).
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
) -> Evaluation:
    """Scores the test images and computes metrics, baselines and diagnostics.

    Args:
        config: the run's config.
        networks: the modules.
        variables: the variables of both networks, on the devices of the mesh.
        step: the number of updates that the networks were trained for.
        dataset: the run's category.
        mesh: the devices; by default all devices of this process.

    Returns:
        The `Evaluation`.
    """
    scorer = Scorer(
        networks,
        variables,
        image_shape=image_shape(config),
        map_sigma=config.score.map_sigma,
        batch_size=config.score.batch_size,
        mesh=mesh or sharding.make_mesh(jax.local_devices()),
    )
    raw = scorer(dataset.test.images)
    normal = scorer(dataset.calibration.images) if len(dataset.calibration) else None
    reference = calibration_lib.fit_reference(
        scorer(evenly_spaced(dataset.train.images, _SAMPLE)), step
    )
    calibration, defective = _decide(config, raw, normal, reference)
    named = _test_scores(raw, config, calibration, reference)
    with signals.interruptible():
        summary = _summary(config, dataset, step, raw, named, calibration)
    relative = relative_map(raw.anomaly_map, reference.anomaly_map)
    summary["pixel_auroc_relative"] = _pixel_auroc(dataset, relative)
    summary["memory"] = _memory_summary(scorer, evenly_spaced(dataset.test.images, _SAMPLE))
    summary["pseudo"] = None
    if normal is not None:
        summary["pseudo"] = _pseudo_summary(config, dataset, scorer, normal, calibration, reference)
    return Evaluation(config, summary, raw, named, calibration, reference, defective, scorer)


def write_evaluation(folder: Path, evaluation: Evaluation, dataset: Dataset) -> None:
    """Writes ``evaluation.json``, ``scores.csv``, ``reference.npz`` and ``calibration.json``.

    Each file is replaced as a whole. Without calibration there is no ``calibration.json``.

    Args:
        folder: the run's folder.
        evaluation: what `evaluate` returned.
        dataset: what it was called with.
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
    normal: RawScores,
    defective: RawScores,
    kinds: list[str],
    name_scores: Callable[[RawScores], Named],
) -> dict[str, Any]:
    """How well scores separate held-out normal images from pseudo-defects; uses no test image.

    Args:
        normal: scores of the n normal images.
        defective: scores of the m pseudo-defects.
        kinds: the kinds of the m pseudo-defects.
        name_scores: computes the scores by name; its scales must not depend on the images.

    Returns:
        ``normal_images``, n; ``defects``, m; ``by_kind``, for each kind the image AUROC of each
        score against all normal images; ``scores``, for each score the mean over the kinds.
    """
    good, bad = name_scores(normal), name_scores(defective)
    count = len(normal.reconstruction_score)
    labels = np.repeat([0, 1], [count, len(kinds)])
    both = {name: np.concatenate([good[name], bad[name]]) for name in good}
    by_kind = _by_kind([GOOD] * count + kinds, labels, both)
    means = {name: float(np.mean([values[name] for values in by_kind.values()])) for name in good}
    return {
        "normal_images": count,
        "defects": len(kinds),
        "scores": means,
        "by_kind": by_kind,
    }


def _pseudo_summary(
    config: Config,
    dataset: Dataset,
    scorer: Scorer,
    normal: RawScores,
    calibration: Calibration | None,
    reference: Reference,
) -> dict[str, Any]:
    def name_scores(raw: RawScores) -> Named:
        inputs = (raw, config.score, calibration, reference)
        return compute_scores(calibration_lib.calibrated_inputs(*inputs))

    defects = make_pseudo_defects(dataset.calibration.images, dataset.train.images)
    return pseudo_summary(normal, scorer(defects.images), defects.kinds, name_scores)


def summarize_use(use: MemoryUse, images: int) -> dict[str, Any]:
    """Summarises the use of one memory by some images.

    Args:
        use: sums over the reads of the images.
        images: the number of images.

    Returns:
        ``images``; ``items``, N of all banks; ``items_read`` and ``never_read``, the number of
        items with and without a weight above zero in some read; ``effective_items``, the
        exponential of the entropy of the items' shares in the total weight (N if all are used
        alike, 0 without reads); ``active_items`` and ``entropy`` (nats), means over reads;
        ``reads`` and ``dead_reads``, counts.
    """
    weight = np.asarray(use.weight)
    share = weight / max(float(np.sum(weight)), np.finfo(np.float64).tiny)
    read, blocks = int(np.sum(np.asarray(use.reads) > 0)), float(use.blocks)
    return {
        "images": images,
        "items": len(share),
        "items_read": read,
        "never_read": len(share) - read,
        "effective_items": float(np.exp(np.sum(entr(share)))) if read else 0.0,
        "active_items": float(use.active_items) / blocks,
        "entropy": float(use.entropy) / blocks,
        "reads": int(blocks),
        "dead_reads": int(use.dead_reads),
    }


def _decide(
    config: Config, raw: RawScores, normal: RawScores | None, reference: Reference
) -> tuple[Calibration | None, np.ndarray | None]:
    """The calibration by held-out normal images, and the decisions for the test images."""
    if normal is None:
        return None, None
    calibration = calibration_lib.calibrate(normal, reference.step, config.score, reference)
    decided = calibration_lib.decision_score(raw, config.score, calibration, reference)
    return calibration, decided >= calibration.threshold


def _test_scores(
    raw: RawScores, config: Config, calibration: Calibration | None, reference: Reference
) -> Named:
    """Scores of the test images: A by `score.protocol`, and A of the other protocol if possible."""
    scales = {"paper": fit_scales(raw)}
    if calibration is not None:
        scales["calibrated"] = calibration.scales
    return compute_scores(ScoreInputs(raw, config.score, scales, config.score.protocol, reference))


def _memory_summary(scorer: Scorer, images: np.ndarray) -> dict[str, dict[str, Any]]:
    items = diagnostics.memory_items(scorer)
    return {
        scale: summarize_use(use, len(images)) | diagnostics.pairwise_cosine(items[scale])
        for scale, use in scorer.memory_use(images).items()
    }


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
        "scores": {
            name: metrics.detection_metrics(labels, values, samples=samples, seed=seed)
            for name, values in named.items()
        },
        "by_kind": _by_kind(test.kinds, labels, named),
        "pixel_auroc": _pixel_auroc(dataset, raw.anomaly_map),
        "decision": config.score.decision,
        "threshold": None if calibration is None else calibration.threshold,
        "controls": baselines.evaluate_baselines(dataset.train, test),
    }


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
