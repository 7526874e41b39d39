"""Functions for those who never touch a flag: check, train, evaluate, one step.

Everything here is exported from `daad_jax`.
"""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from daad_jax import config as config_lib
from daad_jax import data
from daad_jax.addressing import Rule
from daad_jax.config import Config
from daad_jax.data import Dataset
from daad_jax.data.tiles import cut
from daad_jax.evaluation import evaluate as evaluation
from daad_jax.evaluation.evaluate import Evaluation
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import Networks, build_networks
from daad_jax.runtime import sharding
from daad_jax.runtime.files import user_path
from daad_jax.scoring import scores
from daad_jax.scoring.calibration import Calibration
from daad_jax.train import loop, losses, step
from daad_jax.train import state as state_lib
from daad_jax.train.state import TrainState
from daad_jax.workdir.run import open_run


def check(config: Config, rule: Rule | None = None) -> None:
    """Checks everything about a config that can be known without its images.

    `rule` replaces the addressing rule that `memory.addressing` names. Raises ConfigError, which
    names the first field that cannot work and says what to do.
    """
    config_lib.validate(config)
    data.check_source(config.data)
    losses.loss_spec(config)
    scores.check_decision(config)
    build_networks(config, rule)


def fit(
    config: Config,
    dataset: Dataset,
    *,
    workdir: str | Path | Callable[[], Path] | None = None,
    rule: Rule | None = None,
    mesh: jax.sharding.Mesh | None = None,
    stop_at: int | None = None,
    log: Callable[[str], None] = print,
) -> TrainState:
    """Trains a config on the normal images of a dataset.

    Args:
        config: the config; it is checked first.
        dataset: its `train` images are used.
        workdir: folder of checkpoints and logs; training resumes from its last checkpoint. Or a
            function that opens it and returns it. With None nothing is written.
        rule: the addressing rule to use instead of the one that `memory.addressing` names.
        mesh: the devices; by default all of them, as `config.mesh` says.
        stop_at: stop after this many updates, as if interrupted.
        log: receives progress messages.

    Returns:
        The state after the last update.

    Raises:
        ConfigError: if the config, or the batch it asks for, cannot work.
        CheckpointError: if the workdir holds another run, is damaged or is in use.
        NonFiniteError: when a loss or gradient is not finite.
        SaveError: when a checkpoint or log cannot be written.
    """
    check(config, rule)
    mesh = mesh or sharding.make_mesh(fields=config.mesh)
    networks = build_networks(config, rule, devices=mesh.size)
    images = dataset.train.inputs
    with contextlib.ExitStack() as stack:
        run: Any = workdir
        if isinstance(workdir, (str, Path)):
            opened = open_run(user_path(workdir), config, images)
            run = functools.partial(stack.enter_context, opened)
        return loop.train(
            config,
            networks,
            cut(images, config.data),
            run=run,
            mesh=mesh,
            category=dataset.category,
            stop_at=stop_at,
            log=log,
        )


def evaluate(
    config: Config,
    state: TrainState,
    dataset: Dataset,
    *,
    rule: Rule | None = None,
    mesh: jax.sharding.Mesh | None = None,
    calibration: Calibration | None = None,
) -> Evaluation:
    """Scores the test images of a dataset with a trained state. No file is read or written.

    `config` and `rule` must be those that `fit` trained the state with. All three parts of the
    dataset are used. `mesh` defaults to all devices; several processes call it together, and each
    scores its part. `calibration` replaces the one that is made from the held-out images. Raises
    ConfigError if the config cannot work, and NonFiniteError if a score is not finite because the
    training has diverged.
    """
    check(config, rule)
    mesh = mesh or sharding.make_mesh(fields=config.mesh)
    return evaluation.evaluate(
        config,
        build_networks(config, rule, devices=mesh.size),
        sharding.place_tree(state.eval_variables, mesh),
        int(np.asarray(jax.device_get(state.step))),
        dataset,
        mesh=mesh,
        calibration=calibration,
    )


def init_state(config: Config, networks: Networks, key: jax.Array, images: jax.Array) -> TrainState:
    """Makes the state at step 0. This is a pure function and can be jitted.

    `images` are training images, uint8 ``(B, H, W, C)`` in 0 to 255. The memory items are scaled to
    the queries of these images. Running means start at 0 and running variances at 1.
    """
    spec = step.step_spec(config)
    normalized = normalize_images(images)
    return state_lib.init_state(
        networks, spec.adam, key, normalized, average=spec.average_decay > 0
    )


def make_train_step(
    config: Config, *, networks: Networks | None = None
) -> Callable[[TrainState, jax.Array, jax.Array], step.StepResult]:
    """Builds the train step of a config, a pure function that the caller jits.

    `networks` defaults to the modules that the config describes. Returns
    ``step(state, images, key) -> StepResult``. Its images are uint8 ``(B, H, W, C)`` in 0 to 255.
    """
    return step.make_train_step(networks or build_networks(config), step.step_spec(config))
