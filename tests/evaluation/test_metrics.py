import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from daad_jax.data.dataset import ImageSet
from daad_jax.evaluation import baselines, metrics
from daad_jax.models.discriminator import Discriminator

RNG = np.random.default_rng(2)
LABELS = np.repeat([0, 1], 40)
SCORES = np.round(RNG.normal(size=80) + LABELS, 1)  # rounding makes ties


def test_detection_metrics():
    result = metrics.detection_metrics(LABELS, SCORES, samples=200, seed=0)
    low, high = result["image_auroc_interval"]
    assert result["image_auroc"] == roc_auc_score(LABELS, SCORES)
    assert low < result["image_auroc"] < high
    threshold = result["best_f1_threshold"]
    called = threshold <= SCORES
    precision, recall = LABELS[called].mean(), called[LABELS == 1].mean()
    assert result["best_f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_bootstrap_matches_resampling_with_sklearn():
    rng = np.random.default_rng(5)
    aurocs = []
    for _ in range(1500):
        chosen = np.concatenate([rng.integers(0, 40, 40), rng.integers(40, 80, 40)])
        aurocs.append(roc_auc_score(LABELS[chosen], SCORES[chosen]))
    interval = metrics.bootstrap_auroc(LABELS, SCORES, samples=1500, seed=0)
    np.testing.assert_allclose(interval, np.quantile(aurocs, [0.025, 0.975]), atol=0.015)


def test_raw_scores_far_apart_keep_their_order():
    labels, values = np.array([0, 1, 0, 1]), np.array([1e3, 2e3, 1e3 + 1, 2e3 + 1])
    assert metrics.image_auroc(labels, values) == 1.0


def image_set(images, kinds=None):
    count = len(images)
    return ImageSet(images, [str(i) for i in range(count)], kinds or ["good"] * count)


def test_baselines_match_numpy():
    train = RNG.integers(0, 255, (40, 8, 8, 1), dtype=np.uint8)
    test = RNG.integers(0, 255, (6, 8, 8, 1), dtype=np.uint8)
    result = baselines.baseline_scores(image_set(train), image_set(test))
    pixels = test[..., 0].astype(np.float64)
    np.testing.assert_allclose(result["mean"], pixels.mean((1, 2)))
    np.testing.assert_allclose(result["std"], pixels.std((1, 2)))
    down, across = np.gradient(pixels, axis=(1, 2))
    np.testing.assert_allclose(result["gradient"], np.sqrt(down**2 + across**2).mean((1, 2)))
    flat = lambda x: x.reshape(len(x), -1) / 127.5 - 1  # noqa: E731
    center = flat(train).mean(0)
    basis = np.linalg.svd(flat(train) - center)[2][:32]
    centered = flat(test) - center
    expected = ((centered - centered @ basis.T @ basis) ** 2).mean(1)
    np.testing.assert_allclose(result["pca"], expected, rtol=1e-3)


def test_baselines_are_given_in_both_directions():
    dark = np.array([10, 20, 30, 40], np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    train, test = image_set(dark), image_set(dark, ["bent", "bent", "good", "good"])
    result = baselines.evaluate_baselines(train, test, Discriminator(4), test.images / 127.5 - 1)
    assert result["mean"] == {"image_auroc": 0.0, "turned_around": 1.0}
    assert baselines.best_baseline({"mean": result["mean"]}) == ("mean", 1.0)


def test_untrained_discriminators_score_by_their_features():
    images = np.random.default_rng(3).integers(0, 256, (70, 16, 16, 1), dtype=np.uint8)
    clean = images / 127.5 - 1
    noise = (
        np.random.default_rng(4).normal(0, 0.3, clean.shape)
        * (np.arange(70) >= 35)[:, None, None, None]
    )
    module = Discriminator(8, 16)
    draws = baselines.untrained_scores(module, images, images, np.float32(clean + noise))
    assert len(draws) == baselines.DRAWS
    assert not np.allclose(draws[0], draws[1])
    for values in draws:
        np.testing.assert_allclose(values[:35], 0.0, atol=1e-9)
        assert values[35:].min() > 1e-4
    variables = module.init(jax.random.split(jax.random.key(0), 3)[0], clean[:1], train=False)
    module = module.clone(batch_norm_momentum=0.0)
    stats = module.apply(variables, clean, train=True, mutable=["batch_stats"])[1]
    own, rebuilt = (
        module.apply(variables | stats, np.float32(x), train=False).features
        for x in (clean, clean + noise)
    )
    np.testing.assert_allclose(
        draws[0], ((own - rebuilt) ** 2).mean((1, 2, 3)), rtol=1e-3, atol=1e-8
    )
