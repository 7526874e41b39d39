"""Evaluation of trained networks on the test images of one category."""

import csv
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from scipy.special import entr

from daad_jax.config import Config, to_dict
from daad_jax.data import Dataset, ImageSet
from daad_jax.data.dataset import GOOD
from daad_jax.data.frame import picture_box
from daad_jax.data.tiles import Tiles, tiling
from daad_jax.evaluation import baselines, diagnostics, metrics
from daad_jax.evaluation.localization import localization_metrics, mask_areas
from daad_jax.evaluation.picking import pick_examples
from daad_jax.evaluation.pseudo_defects import MIN_SIZE, PseudoDefects, make_pseudo_defects
from daad_jax.models.build import Networks, build_discriminator
from daad_jax.runtime import sharding, signals
from daad_jax.runtime.files import replacing, write_json
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring import scores as scores_lib
from daad_jax.scoring.calibration import Calibration
from daad_jax.scoring.maps import shown_maps
from daad_jax.scoring.scorer import MemoryUse, Scorer, Variables
from daad_jax.scoring.scores import RawScores, Reference, ScoreInputs, compute_scores

EVALUATION_FILE = "evaluation.json"
SCORES_FILE = "scores.csv"
_SAMPLE = 256  # number of images for the reference maps and for the use of the memories
_SAMPLE_PIXELS = 1 << 25  # at most, of all of them: 256 images of 362 px

Named = dict[str, np.ndarray]


class Evaluation(NamedTuple):
    """The result of `evaluate`.

    Attributes:
        config: the run's config.
        summary: the contents of ``evaluation.json``: ``category``, ``setting``, ``step``,
            ``protocol``, counts, ``left_out`` (images with unreadable files), ``duplicates``
            (counts), ``masks`` (see `count_masks`), ``scores`` (for each the metrics of
            `daad_jax.evaluation.metrics.detection_metrics`), ``by_kind`` (image AUROC of each score
            for each kind of defect), those of
            `daad_jax.evaluation.localization.localization_metrics` for `maps`,
            ``pixel_auroc_relative``, ``decision`` (the name of the score that decides), its
            ``threshold``, ``threshold_from`` (what it was made from and promises, as text) and its
            ``false_alarms`` (see `daad_jax.scoring.conformal.FalseAlarms`), ``controls`` (the
            baselines),
            ``made_with`` (the folders and the score settings, which may change after training),
            ``memory`` and ``pseudo`` (None for images below 16 px, or if none were held out).
            Without normal and defective test images there is no AUROC: ``scores`` holds no metrics,
            and ``by_kind`` and ``controls`` are empty.
        raw: maps, reconstructions and unscaled scores of the test images.
        maps: the maps of the test images that `score.map` names, float32 ``(n, H, W)``.
        scores: the scores of the test images by name, float64 ``(n,)`` each.
        calibration: scales and threshold, or None if no images were held out.
        reference: mean maps of normal training images.
        defective: bool ``(n,)``, the decisions for the test images; None without a threshold.
        scorer: the networks on devices of this process, for diagnostics; None if the evaluation was
            made without networks.
        pseudo: pseudo-defects to look at, if no test image is defective and some were made.
    """

    config: Config
    summary: dict[str, Any]
    raw: RawScores
    maps: np.ndarray
    scores: Named
    calibration: Calibration | None
    reference: Reference | None = None
    defective: np.ndarray | None = None
    scorer: Scorer | None = None
    pseudo: "PseudoExamples | None" = None


class PseudoExamples(NamedTuple):
    """Pseudo-defects to look at where no test image is defective.

    Of each kind these are the worst, the typical and the best scored. `evaluation` holds their
    maps, scores and decisions in place of those of test images. `found` is the share of all
    pseudo-defects of each kind that is called defective.
    """

    images: ImageSet
    evaluation: Evaluation
    found: dict[str, float]


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
    devices; with those of several processes this is a collective call. `step` is the number of
    updates that the networks were trained for.
    `calibration` is used as it is; by default one is made from the held-out images, if there are
    any. Raises NonFiniteError if a score is not finite.
    """
    mesh = mesh or sharding.make_mesh(fields=config.mesh)
    scorer = Scorer(networks, variables, config, mesh)
    raw = scorer(dataset.test.inputs)
    normal = scorer(dataset.calibration.inputs) if len(dataset.calibration) else None
    reference = calibration_lib.fit_reference(scorer(_sample(dataset.train)), step)
    if calibration is None and normal is not None:
        calibration = calibration_lib.calibrate(normal, step, config.score, reference)
    defective = calibration_lib.decide(raw, config.score, calibration, reference)
    named = _test_scores(raw, config, calibration, reference)
    maps = shown_maps(raw, config.score, reference)
    with signals.interruptible():
        summary = _summary(config, dataset, step, raw, named, calibration)
        place = functools.partial(picture_box, config=config.data)
        valid = dataset.test.valid
        summary |= localization_metrics(dataset.test.masks, maps, place, valid)
        relative = scores_lib.relative_map(raw.anomaly_map, reference.anomaly_map)
        found = localization_metrics(dataset.test.masks, relative, place, valid)
        summary["pixel_auroc_relative"] = found["pixel_auroc"]
    used = dataset.test if len(dataset.test) else dataset.train
    local = scorer.local()
    sample, items = _sample(used), diagnostics.memory_items(local)
    summary["memory"] = {
        scale: summarize_use(use, len(sample)) | diagnostics.pairwise_cosine(items[scale])
        for scale, use in scorer.memory_use(scorer.cut(sample)).items()
    }
    evaluation = Evaluation(
        config, summary, raw, maps, named, calibration, reference, defective, local
    )
    summary["pseudo"] = None
    if normal is None or min(config.data.picture_size) < MIN_SIZE:
        return evaluation
    return _with_pseudo_defects(evaluation, scorer, normal, dataset)


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


def evenly_spaced(images: np.ndarray | Tiles, most: int) -> np.ndarray:
    """At most `most` of the images, evenly spaced."""
    return images[:: -(-len(images) // most)]


def _sample(images: ImageSet) -> np.ndarray:
    """A sample of a set for what is averaged over it, fewer images if they are large."""
    pixels = int(np.prod(images.inputs.shape[1:3]))
    return evenly_spaced(images.inputs, max(1, min(_SAMPLE, _SAMPLE_PIXELS // pixels)))


def pseudo_summary(good: Named, bad: Named, kinds: list[str]) -> dict[str, Any]:
    """How well scores separate held-out normal images from pseudo-defects, without test images.

    `good` and `bad` are the scores of both by name, and `kinds` the kinds of the pseudo-defects.
    Returns ``normal_images`` and ``defects`` (counts), ``by_kind`` (for each kind the image AUROC
    of each score against all normal images) and ``scores`` (for each score the mean over the
    kinds).
    """
    count = len(next(iter(good.values())))
    labels = np.repeat([0, 1], [count, len(kinds)])
    both = {name: np.concatenate([good[name], bad[name]]) for name in good}
    by_kind = _by_kind([GOOD] * count + kinds, labels, both)
    means = {name: float(np.mean([values[name] for values in by_kind.values()])) for name in good}
    counts = {"normal_images": count, "defects": len(kinds)}
    return counts | {"scores": means, "by_kind": by_kind}


def _with_pseudo_defects(
    evaluation: Evaluation, scorer: Scorer, normal: RawScores, dataset: Dataset
) -> Evaluation:
    """Adds what is known from pseudo-defects to the summary and, maybe, examples of them."""
    config, calibration = evaluation.config, evaluation.calibration
    defects = make_pseudo_defects(dataset.calibration.inputs, dataset.train.images)
    raw = scorer(defects.images)
    good, bad = (
        compute_scores(
            calibration_lib.calibrated_inputs(one, config.score, calibration, evaluation.reference)
        )
        for one in (normal, raw)
    )
    evaluation.summary["pseudo"] = pseudo_summary(good, bad, defects.kinds)
    if dataset.test.labels.any():
        return evaluation
    return evaluation._replace(pseudo=_pseudo_examples(evaluation, defects, raw, bad))


def _pseudo_examples(
    evaluation: Evaluation, defects: PseudoDefects, raw: RawScores, named: Named
) -> PseudoExamples:
    config, kinds = evaluation.config, np.array(defects.kinds)
    defective = calibration_lib.decide(
        raw, config.score, evaluation.calibration, evaluation.reference
    )
    assert defective is not None  # pseudo-defects are made if there is a calibration
    found = {str(kind): float(np.mean(defective[kinds == kind])) for kind in dict.fromkeys(kinds)}
    picked = pick_examples(defects.kinds, named[config.score.decision])
    places = [one.position for one in picked]
    images = ImageSet(
        defects.images[places],
        [f"{kinds[place]} {place}" for place in places],
        [defects.kinds[place] for place in places],
        defects.masks[places],
    )
    raw = raw._replace(**{k: v[places] for k, v in raw._asdict().items() if v is not None})
    shown = evaluation._replace(
        summary=evaluation.summary | {"protocol": "calibrated"},
        raw=raw,
        maps=shown_maps(raw, config.score, evaluation.reference),
        scores={name: values[places] for name, values in named.items()},
        defective=defective[places],
    )
    return PseudoExamples(images, shown, found)


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
        "decision": config.score.decision,
        **_threshold(calibration),
        "made_with": _made_with(config),
        "controls": baselines.evaluate_baselines(
            dataset.train,
            test,
            build_discriminator(config),
            raw.reconstruction,
            tiling(config.data),
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
    scores = to_dict(config)["score"]
    return made_with | {f"score.{name}": value for name, value in scores.items()}


def count_masks(test: ImageSet) -> dict[str, Any] | None:
    """Counts masks at their own size, at which localisation is measured; None without masks.

    Returns ``images`` (defective ones, which have a mask), ``empty`` (masks without a defect),
    ``defective_pixels``, and ``smallest`` and ``largest``, the ``[height, width]`` of the smallest
    and the largest picture.
    """
    if test.masks is None:
        return None
    areas = mask_areas(test.masks)[test.labels == 1]
    counts = {"images": areas.size, "empty": np.sum(areas == 0), "defective_pixels": areas.sum()}
    shapes = sorted((list(mask.shape) for mask in test.masks), key=math.prod)
    sizes = {"smallest": shapes[0], "largest": shapes[-1]} if shapes else {}
    return {name: int(count) for name, count in counts.items()} | sizes


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
