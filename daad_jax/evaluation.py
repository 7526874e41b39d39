"""Evaluation of a trained run: scores, metrics and controls of one category's test images."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import entr

from daad_jax import (
    controls,
    diagnostics,
    files,
    interruption,
    lock,
    metrics,
    scores,
    scoring,
    sharding,
)
from daad_jax.checkpoint import check_same_images, load_config
from daad_jax.config import Config
from daad_jax.data import Dataset
from daad_jax.data.dataset import GOOD
from daad_jax.data.pseudo import make_pseudo_defects
from daad_jax.manifest import write_json
from daad_jax.scoring import Calibration, MemoryUse, RawScores, Reference, Scorer

EVALUATION_FILE = "evaluation.json"
SCORES_FILE = "scores.csv"
_USAGE_IMAGES = 256
_REFERENCE_IMAGES = 256


class Evaluation(NamedTuple):
    """What `evaluate` found.

    Attributes:
        config: the run's.
        summary: what ``evaluation.json`` holds.
        raw: the scores, maps and reconstructions of the test images.
        scores: the scores by name, see `named_scores`.
        calibration: the scales and threshold, or None when no images were held out.
        scorer: what scored them, for what is asked of the networks later; None without networks.
    """

    config: Config
    summary: dict[str, Any]
    raw: RawScores
    scores: dict[str, np.ndarray]
    calibration: Calibration | None
    scorer: Scorer | None = None


def evaluate(
    workdir: Path, dataset: Dataset, *, mesh: jax.sharding.Mesh | None = None
) -> Evaluation:
    """Evaluates the last checkpoint of a workdir.

    Args:
        workdir: the run's folder; gets ``evaluation.json``, ``scores.csv`` and, when images were
            held out, ``calibration.json``; ``reference.npz`` gets mean maps of training images.
        dataset: the run's category.
        mesh: the devices; all of this process by default.

    Returns:
        The `Evaluation`. Its summary has ``category``, ``setting``, ``step``, ``protocol``,
        counts, ``left_out`` (images with files that could not be used), ``duplicates`` (see
        `daad_jax.data.dataset.Duplicates`, counted), ``scores`` (those of `named_scores`, each with
        the metrics of `daad_jax.metrics.detection_metrics`), ``by_kind`` (the image AUROC of each
        score for each kind of defect), ``pixel_auroc`` and ``pixel_auroc_relative``, ``verdict``
        (the score's name) and its ``threshold``, ``controls``, ``memory`` (see `summarize_usage`
        and `daad_jax.diagnostics.pairwise_cosine`) and ``pseudo`` (see
        `pseudo_summary`; None when no images were held out).

    Raises:
        CheckpointError: if the workdir has no sound checkpoint, or the images are others, or
            another process is at work there.
    """
    config = load_config(workdir)
    with lock.hold(workdir):
        check_same_images(workdir, dataset.train.images)
        return _evaluate(workdir, config, dataset, mesh or sharding.make_mesh(jax.local_devices()))


def _evaluate(
    workdir: Path, config: Config, dataset: Dataset, mesh: jax.sharding.Mesh
) -> Evaluation:
    state = scoring.restore_state(workdir, config, mesh)
    step = int(state.step)
    scorer = Scorer(config, state, mesh)
    raw = scorer(dataset.test.images)
    held_out = scorer(dataset.calibration.images) if len(dataset.calibration) else None
    normal = scorer(_evenly(dataset.train.images, _REFERENCE_IMAGES))
    reference = scoring.fit_reference(normal, step)
    scoring.save_reference(workdir, reference)
    calibration = None
    if held_out is not None:
        calibration = scoring.calibrate(held_out, step, config.score, reference)
        scoring.save_calibration(workdir, calibration)
    named = named_scores(raw, config, calibration, reference)
    with interruption.anywhere():
        summary = _assemble(config, dataset, step, raw, named, calibration)
    summary["pixel_auroc_relative"] = _pixel_auroc(
        dataset, scores.relative_map(raw.anomaly_map, reference.anomaly_map)
    )
    sample = _evenly(dataset.test.images, _USAGE_IMAGES)
    summary["memory"] = summarize_usage(scorer.usage(sample), len(sample))
    for scale, bank in diagnostics.memory_items(scorer).items():
        summary["memory"][scale] |= diagnostics.pairwise_cosine(bank)
    summary["pseudo"] = _score_pseudo_defects(
        config, dataset, scorer, held_out, calibration, reference
    )
    called = None
    if calibration is not None:
        verdict = scoring.verdict_score(raw, config.score, calibration, reference)
        called = verdict >= calibration.threshold
    _write_scores(workdir / SCORES_FILE, dataset, named, called)
    write_json(workdir / EVALUATION_FILE, summary)
    return Evaluation(config, summary, raw, named, calibration, scorer)


def named_scores(
    raw: RawScores, config: Config, calibration: Calibration | None, reference: Reference
) -> dict[str, np.ndarray]:
    """The scores by name: R, L (with a discriminator), A, A under the other protocol, localised.

    R and L are unscaled. ``A`` follows ``score.protocol``; the other protocol, where it can be
    had, is ``A_paper`` or ``A_calibrated``. The localised ones, which are not the paper's, are
    those of `daad_jax.scoring.localized_scores`.
    """
    gamma = config.score.gamma
    named = {"R": raw.reconstruction_score}
    if raw.alignment_score is not None:
        named["L"] = raw.alignment_score
    fused = {"paper": scoring.fuse(raw, gamma, _paper_scales(raw))}
    if calibration is not None:
        fused["calibrated"] = scoring.fuse(raw, gamma, calibration)
    named["A"] = fused[config.score.protocol]
    named |= {f"A_{name}": fused[name] for name in fused if name != config.score.protocol}
    return named | scoring.localized_scores(raw, config.score.map_quantile, reference)


def summarize_usage(usage: dict[str, MemoryUse], images: int) -> dict[str, dict[str, Any]]:
    """How the items of each memory are in use.

    Args:
        usage: for each scale, sums over the reads of some images.
        images: how many.

    Returns:
        For each scale ``images``; ``items``, N of all banks; ``items_read`` and ``never_read``, the
        items with a weight above zero in some read and in none; ``effective_items``, the perplexity
        of use: the exponential of the entropy of the items' shares in all weight, N when all are
        used alike, 0 without any read; ``active_items`` and ``entropy`` (nats), means over reads;
        ``reads`` and ``dead_reads``, counts.
    """
    result = {}
    for scale, use in usage.items():
        share = np.asarray(use.weight) / max(float(np.sum(use.weight)), np.finfo(np.float64).tiny)
        read, blocks = int(np.sum(np.asarray(use.reads) > 0)), float(use.blocks)
        result[scale] = {
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
    return result


def _evenly(images: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the images, evenly spaced."""
    return images[:: -(-len(images) // most)]


def _pixel_auroc(dataset: Dataset, maps: np.ndarray) -> float | None:
    masks = dataset.test.masks
    return None if masks is None else metrics.pixel_auroc(masks, maps)


def pseudo_summary(
    normal: RawScores,
    defective: RawScores,
    kinds: list[str],
    name_scores: Callable[[RawScores], dict[str, np.ndarray]],
) -> dict[str, Any]:
    """How well scores tell held-out normal images from pseudo-defects; no test image is used.

    Args:
        normal: the n normal images' scores.
        defective: the m pseudo-defects' scores.
        kinds: the pseudo-defects' m kinds.
        name_scores: gives the scores by name, float ``(k,)`` each, of either; what it scales by
            must not depend on the images.

    Returns:
        ``normal_images``, n; ``defects``, m; ``by_kind``, for each kind each score's image AUROC
        against all normal images; ``scores``, for each score the mean over the kinds.
    """
    good, bad = name_scores(normal), name_scores(defective)
    count = len(normal.reconstruction_score)
    labels = np.repeat([0, 1], [count, len(kinds)])
    both = {name: np.concatenate([good[name], bad[name]]) for name in good}
    by_kind = _by_kind([GOOD] * count + kinds, labels, both)
    return {
        "normal_images": count,
        "defects": len(kinds),
        "scores": {
            name: float(np.mean([values[name] for values in by_kind.values()])) for name in good
        },
        "by_kind": by_kind,
    }


def _score_pseudo_defects(
    config: Config,
    dataset: Dataset,
    scorer: Scorer,
    normal: RawScores | None,
    calibration: Calibration | None,
    reference: Reference,
) -> dict[str, Any] | None:
    if normal is None or calibration is None:
        return None

    def name_scores(raw: RawScores) -> dict[str, np.ndarray]:
        named = named_scores(raw, config, calibration, reference)
        fused = named.get("A_calibrated", named["A"])
        return {name: named[name] for name in named if not name.startswith("A_")} | {"A": fused}

    defects = make_pseudo_defects(dataset.calibration.images, dataset.train.images)
    return pseudo_summary(normal, scorer(defects.images), defects.kinds, name_scores)


def _paper_scales(raw: RawScores) -> Calibration:
    alignment = None if raw.alignment_score is None else scores.fit_scale(raw.alignment_score)
    return Calibration(0, scores.fit_scale(raw.reconstruction_score), alignment, 0.0)


def _assemble(
    config: Config,
    dataset: Dataset,
    step: int,
    raw: RawScores,
    named: dict[str, np.ndarray],
    calibration: Calibration | None,
) -> dict[str, Any]:
    test = dataset.test
    samples, seed = config.score.bootstrap_samples, config.seed
    control = controls.control_scores(dataset.train, test)
    return {
        "category": dataset.category,
        "setting": config.setting,
        "step": step,
        "protocol": config.score.protocol,
        "train_images": len(dataset.train),
        "calibration_images": len(dataset.calibration),
        "test_good": int(np.sum(test.labels == 0)),
        "test_defective": int(np.sum(test.labels == 1)),
        "left_out": dataset.left_out,
        "duplicates": {name: len(pairs) for name, pairs in dataset.duplicates._asdict().items()},
        "scores": {
            name: metrics.detection_metrics(test.labels, values, samples=samples, seed=seed)
            for name, values in named.items()
        },
        "by_kind": _by_kind(test.kinds, test.labels, named),
        "pixel_auroc": _pixel_auroc(dataset, raw.anomaly_map),
        "verdict": config.score.verdict,
        "threshold": None if calibration is None else calibration.threshold,
        "controls": controls.evaluate_controls(control, test.labels),
    }


def _by_kind(
    kinds: list[str], labels: np.ndarray, named: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Image AUROC of each score for each defect type against all good images."""
    result = {}
    for kind in sorted({kind for kind, label in zip(kinds, labels, strict=True) if label}):
        chosen = np.array([name == kind for name in kinds]) | (labels == 0)
        result[kind] = {
            name: metrics.image_auroc(labels[chosen], values[chosen])
            for name, values in named.items()
        }
    return result


def _write_scores(
    path: Path, dataset: Dataset, named: dict[str, np.ndarray], called: np.ndarray | None
) -> None:
    """One row per test image: name, kind, label, each score and, if calibrated, the verdict."""
    with (
        files.replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        header = ["image", "kind", "label", *named]
        writer.writerow(header if called is None else [*header, "called_defective"])
        test = dataset.test
        for index, (name, kind) in enumerate(zip(test.names, test.kinds, strict=True)):
            row = [name, kind, test.labels[index]]
            row += [repr(float(values[index])) for values in named.values()]
            writer.writerow(row if called is None else [*row, int(called[index])])
