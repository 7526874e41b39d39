"""Which images form the batch of a step: a pure function of the seed and the step."""

import functools
from typing import NamedTuple

import numpy as np


class BatchOrder(NamedTuple):
    """The order in which a run visits its training images.

    `images` is their number, at least `batch_size`. Each epoch is a new permutation of the images,
    cut into whole batches; a remainder is left out of that epoch. So an image comes at most once in
    an epoch, and resuming needs only the step.
    """

    seed: int
    images: int
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in one pass over the images."""
        return self.images // self.batch_size

    def indices(self, step: int) -> np.ndarray:
        """Returns the image indices ``(batch_size,)`` of update `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _permutation(self.seed, epoch, self.images)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
