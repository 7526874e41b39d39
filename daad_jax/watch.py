"""Watching a run: the first tensor that is not finite, and signs that a part learns nothing."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from daad_jax.errors import warn

WINDOW = 100  # steps that a sign is averaged over
# What a sign takes. None of them is a fault in itself: metrics can be worse and a model good.
SURE_LOSS = 0.01
UNDECIDED_GAP = 0.01
DEAD_SHARE = 0.1
UNUSED_SHARE = 0.9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Finiteness:
    """Which tensors of a step are finite, in the order in which they follow from each other.

    Attributes:
        flags: bool ``(n,)``, whether all elements of a tensor are finite.
        names: the tensors' names.
    """

    flags: jax.Array
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def first_offender(self) -> str | None:
        """The name of the first tensor that is not finite."""
        return next(itertools.compress(self.names, ~np.asarray(self.flags)), None)


def finiteness(*trees: tuple[str, Any]) -> Finiteness:
    """Looks at every tensor of some trees, each given after the name that its tensors begin with.

    Pure and made for use under `jax.jit`. Where a leaf has the path ``a/b``, its name is
    ``<name>/a/b``.
    """
    leaves = [
        (f"{name}/{jax.tree_util.keystr(path, simple=True, separator='/')}".strip("/"), leaf)
        for name, tree in trees
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    flags = jnp.stack([jnp.all(jnp.isfinite(leaf)) for _, leaf in leaves])
    return Finiteness(flags, tuple(name for name, _ in leaves))


class Bank(NamedTuple):
    """What a memory's counts are held against.

    Attributes:
        items: N of all its banks.
        reads: reads in a step, over all images of the batch.
    """

    items: int
    reads: int


def signs(means: Mapping[str, float], banks: Mapping[str, Bank]) -> dict[str, str]:
    """What the metrics' means over some steps say of parts that learn nothing.

    Args:
        means: of the metrics of `daad_jax.step.train_step`, by their names; some may be missing.
        banks: by scale.

    Returns:
        From the sign's name to a line for people.
    """
    found = {}
    real, fake = means.get("discriminator/real"), means.get("discriminator/fake")
    if real is not None and fake is not None:
        if means["loss/discriminator"] < SURE_LOSS:
            found["discriminator/sure"] = (
                f"the discriminator is sure of every image (D(x) {real:.3f}, D(x̂) {fake:.3f}), so "
                "the generator learns little from it; lower train.learning_rate or loss.adv"
            )
        elif abs(real - fake) < UNDECIDED_GAP:
            found["discriminator/undecided"] = (
                "the discriminator has collapsed: it cannot tell images from reconstructions "
                f"(D(x) {real:.3f}, D(x̂) {fake:.3f}), so that the score L may say little"
            )
    for scale, bank in banks.items():
        dead = means.get(f"memory/{scale}/dead_reads", 0.0) / bank.reads
        if dead > DEAD_SHARE:
            found[f"{scale}/dead"] = (
                f"{scale}: {dead:.0%} of the reads are dead: no item passes the cut, and the block "
                "is zero"
            )
        unused = means.get(f"memory/{scale}/unused_items", 0.0) / bank.items
        if unused > UNUSED_SHARE:
            found[f"{scale}/unused"] = (
                f"{scale}: of {bank.items} memory items {unused:.0%} are not read in a step; lower "
                "memory.items or raise memory.temperature"
            )
    return found


class Watch:
    """Warns of each of `signs` once, when the mean over `WINDOW` steps in a row shows it."""

    def __init__(self, banks: Mapping[str, Bank]) -> None:
        """Takes the memories, by scale."""
        self._banks = banks
        self._steps: list[dict[str, float]] = []
        self._warned: set[str] = set()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Takes the metrics of a step, whole and in order; warns where a window ends."""
        self._steps.append(values)
        if len(self._steps) < WINDOW:
            return
        names = self._steps[0]
        means = {name: math.fsum(one[name] for one in self._steps) / WINDOW for name in names}
        self._steps.clear()
        for sign, message in signs(means, self._banks).items():
            if sign not in self._warned:
                self._warned.add(sign)
                warn(f"steps {step - WINDOW + 1} to {step}: {message}")
