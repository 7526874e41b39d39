"""Baselines: statistics of the images, and the features of a discriminator without training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import PCA

from daad_jax.data import ImageSet
from daad_jax.data.tiles import Tiles, Tiling
from daad_jax.evaluation import metrics
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.discriminator import Discriminator
from daad_jax.scoring.scores import mean_squared

COMPONENTS = 32
DRAWS = 3
_BATCH = 64
_MAX_FIT = 2000
_MAX_FIT_VALUES = 1 << 28  # 1 GiB


def baseline_scores(train: ImageSet, test: ImageSet) -> dict[str, np.ndarray]:
    """Scores test images without a network.

    Only ``pca`` uses the images of `train`. Returns float64 ``(n,)`` for each baseline. ``mean``
    and ``std`` are those of an image's pixels. ``gradient`` is the mean length of the pixel
    gradient of the channel mean. ``pca`` is the mean squared error of the reconstruction from 32
    principal components, or fewer for few images.
    """
    statistics = np.array([_statistics(image) for image in test.images])
    named = dict(zip(("mean", "std", "gradient"), statistics.T, strict=True))
    return named | {"pca": pca_error(train.images, test.images)}


def evaluate_baselines(
    train: ImageSet,
    test: ImageSet,
    discriminator: Discriminator,
    reconstruction: np.ndarray,
    tiling: Tiling | None = None,
) -> dict[str, dict[str, float]]:
    """The ``image_auroc`` of each baseline, and ``turned_around``, which is 1 minus it.

    Besides those of `baseline_scores` there is ``untrained``, the mean over `untrained_scores` of
    the test images and their `reconstruction`; of pictures in tiles it is a mean over the tiles.
    """
    named = {name: [values] for name, values in baseline_scores(train, test).items()}
    whole = (train.images, test.images, reconstruction)
    cuts = [one if tiling is None else Tiles(one, tiling) for one in whole]
    named["untrained"] = [
        scores.reshape(len(test), -1).mean(axis=1)
        for scores in untrained_scores(discriminator, *cuts)
    ]
    results = {}
    for name, draws in named.items():
        auroc = float(np.mean([metrics.image_auroc(test.labels, values) for values in draws]))
        results[name] = {"image_auroc": auroc, "turned_around": 1.0 - auroc}
    return results


def untrained_scores(
    discriminator: Discriminator,
    train: np.ndarray | Tiles,
    images: np.ndarray | Tiles,
    reconstruction: np.ndarray | Tiles,
) -> list[np.ndarray]:
    """L(x) by discriminators with random weights: the control that a trained one must beat.

    Their batch normalisation has the statistics of at most 256 of the uint8 ``(m, H, W, C)``
    training images. `images` is uint8 ``(n, H, W, C)`` and `reconstruction` float ``(n, H, W, C)``
    in [-1, 1]. Returns float64 ``(n,)`` for each of three draws of the weights.
    """
    sample = normalize_images(jnp.asarray(train[:: -(-len(train) // 256)]))
    module: Any = discriminator.clone(batch_norm_momentum=0.0)  # keeps the statistics of one batch

    @jax.jit
    def draw(key: jax.Array) -> Any:
        variables = module.init(key, sample[:1], train=False)
        return variables | module.apply(variables, sample, train=True, mutable=["batch_stats"])[1]

    @jax.jit
    def score(variables: Any, seen: jax.Array, rebuilt: jax.Array) -> jax.Array:
        both = (normalize_images(seen), rebuilt)
        return mean_squared(*(module.apply(variables, x, train=False).features for x in both))

    results = []
    for variables in map(draw, jax.random.split(jax.random.key(0), DRAWS)):
        parts = []
        for start in range(0, len(images), _BATCH):
            rows = np.minimum(np.arange(start, start + _BATCH), len(images) - 1)
            parts.append(np.asarray(score(variables, images[rows], reconstruction[rows])))
        results.append(np.concatenate(parts)[: len(images)].astype(np.float64))
    return results


def best_baseline(baselines: dict[str, dict[str, float]]) -> tuple[str, float]:
    """The baseline with the highest AUROC in either direction, picked by the test labels."""
    name = max(baselines, key=lambda key: max(baselines[key].values()))
    return name, max(baselines[name].values())


def pca_error(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean squared error of the reconstruction of images from principal components.

    `train` is uint8 ``(m, H, W, C)``. At most 2,000 evenly spaced images of it are fitted, fewer if
    they would take more than 1 GiB. `test` is uint8 ``(n, H, W, C)``. Returns float64 ``(n,)``,
    computed on pixels in [-1, 1].
    """
    most = min(_MAX_FIT, max(1, _MAX_FIT_VALUES // train[0].size))
    fitted = _rows(train[:: -(-len(train) // most)])
    components = min(COMPONENTS, *fitted.shape)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(fitted)
    errors = []
    for start in range(0, len(test), 64):
        rows = _rows(test[start : start + 64])
        rebuilt = pca.inverse_transform(pca.transform(rows))
        errors.append(np.mean(np.square(rows - rebuilt), axis=1, dtype=np.float64))
    return np.concatenate(errors)


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1.0


def _statistics(image: np.ndarray) -> tuple[float, float, float]:
    pixels = image.astype(np.float64)
    down, across = np.gradient(pixels.mean(axis=-1))
    return pixels.mean(), pixels.std(), np.hypot(down, across).mean()
