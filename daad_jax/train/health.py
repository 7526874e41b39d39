"""Health of a run: the first tensor that is not finite, and signs that a part does not learn."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from daad_jax.errors import warn

WINDOW = 100  # steps over which metrics are averaged
# Limits of the signs. A sign is no error: the model can still be good.
CONFIDENT_LOSS = 0.01
UNDECIDED_GAP = 0.01
SEPARATED_GAP = 0.05
START_STEPS = 1000  # before this step an undecided discriminator may just need more time
DEAD_SHARE = 0.1
UNUSED_SHARE = 0.9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Finiteness:
    """Which tensors of a step are finite, in the order in which they are computed.

    A flag, bool ``(n,)``, is true if all elements of the tensor of that name are finite.
    """

    flags: jax.Array
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def first_offender(self) -> str | None:
        """The name of the first tensor that is not finite, or None."""
        return next(itertools.compress(self.names, ~np.asarray(self.flags)), None)


def finiteness(*trees: tuple[str, Any], parameters: Any = None) -> Finiteness:
    """Checks every tensor of some trees. Pure, for use under `jax.jit`.

    Each tree comes with a prefix: its leaf at path ``a/b`` is named ``PREFIX/a/b``. The leaves of
    `parameters` are named ``parameters/a/b`` and come first. Parameters are large, and if one is
    not finite, neither is a tensor that is computed from it. So they are read only if another
    tensor is not finite.
    """
    names, leaves = _named_leaves(trees)
    own_names, own_leaves = _named_leaves([("parameters", parameters)])
    flags = _all_finite(leaves)
    if own_leaves:
        own_flags = jax.lax.cond(
            jnp.all(flags),
            lambda: jnp.ones(len(own_leaves), bool),
            lambda: _all_finite(own_leaves),
        )
        flags = jnp.concatenate([own_flags, flags])
    return Finiteness(flags, (*own_names, *names))


def _named_leaves(trees: Iterable[tuple[str, Any]]) -> tuple[list[str], list[jax.Array]]:
    names, leaves = [], []
    for prefix, tree in trees:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            names.append(f"{prefix}/{name}".strip("/"))
            leaves.append(leaf)
    return names, leaves


def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])


class MemorySize(NamedTuple):
    """Items of all banks of one memory, and its reads in a step over all images of the batch."""

    items: int
    reads: int


def discriminator_sign(means: Mapping[str, float], *, started: bool) -> dict[str, str]:
    """Signs of a discriminator that gives the generator nothing to learn from.

    `means` are means of the metrics over some steps. Without ``gradient_norm/discriminator`` the
    discriminator is not trained, so there is no sign. `started` is true once the discriminator has
    told images from reconstructions, or has had `START_STEPS` steps. Returns messages by sign.
    """
    if "gradient_norm/discriminator" not in means:
        return {}
    real, fake = means["discriminator/real"], means["discriminator/fake"]
    shown = f"(D(x) {real:.3f}, D(x_hat) {fake:.3f})"
    if means["loss/discriminator"] < CONFIDENT_LOSS:
        return {
            "discriminator/confident": f"the discriminator classifies every image correctly "
            f"{shown}, so the generator learns little from it; lower train.learning_rate or "
            "loss.adv"
        }
    if started and abs(real - fake) < UNDECIDED_GAP:
        return {
            "discriminator/undecided": "the discriminator cannot tell images from "
            f"reconstructions {shown}, so the score L may say little"
        }
    return {}


def memory_signs(means: Mapping[str, float], sizes: Mapping[str, MemorySize]) -> dict[str, str]:
    """Signs of memories that are mostly not read.

    `means` are means of the metrics over some steps; missing ones count as 0. `sizes` are those of
    the memories, by scale. Returns messages by sign.
    """
    found = {}
    for scale, size in sizes.items():
        dead = means.get(f"memory/{scale}/dead_reads", 0.0) / size.reads
        if dead > DEAD_SHARE:
            found[f"{scale}/dead"] = (
                f"{scale}: {dead:.0%} of the memory reads are empty: no item passes the cut, and "
                "the block is zero"
            )
        unused = means.get(f"memory/{scale}/unused_items", 0.0) / size.items
        if unused > UNUSED_SHARE:
            found[f"{scale}/unused"] = (
                f"{scale}: {unused:.0%} of the {size.items} memory items are not read in a step; "
                "lower memory.items or raise memory.temperature"
            )
    return found


class HealthCheck:
    """Warns once of each sign that the mean metrics of `WINDOW` consecutive steps show."""

    def __init__(self, sizes: Mapping[str, MemorySize]) -> None:
        """Takes the sizes of the memories, by scale."""
        self._sizes = sizes
        self._window: list[dict[str, float]] = []
        self._warned: set[str] = set()
        self._separated = False

    def add(self, step: int, values: dict[str, float]) -> None:
        """Takes the metrics of each step in order; at the end of a window it may warn."""
        self._window.append(values)
        if len(self._window) < WINDOW:
            return
        common = set[str].intersection(*(set(one) for one in self._window))
        means = {name: math.fsum(one[name] for one in self._window) / WINDOW for name in common}
        self._window.clear()
        started = self._separated or step >= START_STEPS
        gap = means.get("discriminator/real", 0.0) - means.get("discriminator/fake", 0.0)
        self._separated |= abs(gap) >= SEPARATED_GAP
        signs = discriminator_sign(means, started=started) | memory_signs(means, self._sizes)
        for sign, message in signs.items():
            if sign not in self._warned:
                self._warned.add(sign)
                warn(f"steps {step - WINDOW + 1} to {step}: {message}")
