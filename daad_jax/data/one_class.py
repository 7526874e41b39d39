"""A labelled set as a one-class problem: one class is normal, the others are defects."""

from collections.abc import Sequence

import numpy as np

from daad_jax.data.dataset import GOOD
from daad_jax.errors import ConfigError, suggestion


def resolve_class(category: str, names: Sequence[str]) -> int:
    """Returns the number of the class that a name or a number stands for; a name goes first.

    Raises:
        ConfigError: if there is no such class.
    """
    if category in names:
        return list(names).index(category)
    if category.isdecimal() and int(category) < len(names):
        return int(category)
    raise ConfigError(f"data.category: no class {category!r}; {suggestion(category, names)}")


def class_kinds(labels: np.ndarray, names: Sequence[str], normal: int) -> list[str]:
    """Returns the kind of each image: "good" for the normal class, else its class's name.

    Args:
        labels: int ``(n,)``, each image's class.
        names: the classes' names.
        normal: number of the normal class.
    """
    # A class that is itself called "good" must not pass for the normal one.
    kinds = [f"class {name}" if name == GOOD else name for name in names]
    kinds[normal] = GOOD
    return [kinds[label] for label in labels]
