"""Which images make the batch of a step: a pure function of the seed and the step."""

import functools

import numpy as np


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in one pass over `count` images; the remainder waits for another epoch."""
    return count // batch_size


def batch_indices(seed: int, step: int, count: int, batch_size: int) -> np.ndarray:
    """Returns the images of step `step`, int ``(batch_size,)``.

    Each epoch is one permutation of the images cut into whole batches, so no image comes twice in
    an epoch, and nothing but the step has to be remembered to go on.

    Args:
        seed: the run's seed.
        step: number of the update, from 0.
        count: number of training images, at least `batch_size`.
        batch_size: images per update.
    """
    per_epoch = steps_per_epoch(count, batch_size)
    epoch, position = divmod(step, per_epoch)
    order = _permutation(seed, epoch, count)
    return order[position * batch_size : (position + 1) * batch_size]


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
