"""Picks the images that a report shows of each kind."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from daad_jax.data.dataset import GOOD


class Example(NamedTuple):
    """A test image to show.

    `kind` is its defect type, or "good". `role` says why it is shown: "worst", "typical", "best" or
    "only one". `position` is its index among the test images.
    """

    kind: str
    role: str
    position: int


def pick_examples(kinds: Sequence[str], score: np.ndarray) -> list[Example]:
    """Picks the worst, typical (median) and best scored image of "good" and of each defect type.

    The worst good image has the highest score, the worst defective image the lowest. `kinds` are
    the kinds of n images, and `score` is the score that decides, ``(n,)``.
    """
    picked = []
    for kind in sorted(set(kinds), key=lambda kind: (kind != GOOD, kind)):
        members = np.flatnonzero([name == kind for name in kinds])
        ranked = members[np.argsort(score[members], kind="stable")]
        if kind == GOOD:
            ranked = ranked[::-1]
        count = len(ranked)
        roles = {0: "worst", count // 2: "typical", count - 1: "best"}
        if count == 1:
            roles = {0: "only one"}
        picked += [Example(kind, role, int(ranked[place])) for place, role in roles.items()]
    return picked


def middle_images(kinds: Sequence[str], scores: Sequence[np.ndarray]) -> list[int]:
    """Picks the image of each kind, good first, that stands in the middle of its kind.

    `kinds` are the kinds of n images. `scores` has the score ``(n,)`` by each of some runs; an
    image's place is the mean of its places.
    """
    places = np.mean([np.argsort(np.argsort(score)) for score in scores], axis=0)
    chosen = []
    for kind in sorted(set(kinds), key=lambda kind: (kind != GOOD, kind)):
        indices = np.flatnonzero(np.array(kinds) == kind)
        ranked = indices[np.argsort(places[indices], kind="stable")]
        chosen.append(int(ranked[len(ranked) // 2]))
    return chosen
