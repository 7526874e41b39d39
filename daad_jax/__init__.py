"""DAAD, *Divide-and-Assemble: Learning Block-wise Memory for Unsupervised Anomaly Detection*.

The functions below are imported when they are first used, so that importing one part of the
package imports no more than that part needs::

    config = daad_jax.from_setting("daad")       # what to train
    dataset = daad_jax.load_dataset(config.data, "my_part")
    state = daad_jax.fit(config, dataset, workdir="runs/my_part")
    evaluation = daad_jax.evaluate(config, state, dataset)
    detector = daad_jax.load("runs/my_part")     # scores new images
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daad_jax.api import check, evaluate, fit, init_state, make_train_step
    from daad_jax.config import Config, from_setting
    from daad_jax.data import Dataset, ImageSet, list_categories, load_dataset
    from daad_jax.evaluation.evaluate import Evaluation
    from daad_jax.models.build import Networks, build_networks
    from daad_jax.scoring.detector import Detector, Result, load
    from daad_jax.train.state import TrainState
    from daad_jax.train.step import StepResult

__version__ = "0.1.0"

_HOMES = {
    "daad_jax.api": ("check", "evaluate", "fit", "init_state", "make_train_step"),
    "daad_jax.config": ("Config", "from_setting"),
    "daad_jax.data": ("Dataset", "ImageSet", "list_categories", "load_dataset"),
    "daad_jax.evaluation.evaluate": ("Evaluation",),
    "daad_jax.models.build": ("Networks", "build_networks"),
    "daad_jax.scoring.detector": ("Detector", "Result", "load"),
    "daad_jax.train.state": ("TrainState",),
    "daad_jax.train.step": ("StepResult",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
