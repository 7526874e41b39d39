"""The training loop: batches in, checkpoints and metrics out."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from daad_jax.config import Config
from daad_jax.data.tiles import Tiles
from daad_jax.errors import ConfigError, NonFiniteError
from daad_jax.models.build import Networks
from daad_jax.runtime import processes, sharding, signals
from daad_jax.train.batches import BatchOrder
from daad_jax.train.health import HealthCheck, finiteness
from daad_jax.train.input_pipeline import BatchSource, Take, open_pipeline, open_source
from daad_jax.train.metrics_log import MetricsLog
from daad_jax.train.program import Program, build_program
from daad_jax.train.progress import Progress
from daad_jax.train.state import TrainState
from daad_jax.train.step import step_spec
from daad_jax.workdir.checkpoint import Checkpoints

_INIT_STREAM = 0
_STEP_STREAM = 1
_BALANCE_EVERY = 10  # lines of metrics between two measurements of the losses' gradients


class Plan(NamedTuple):
    """The order of a run's batches, its number of updates, and the update to stop after."""

    order: BatchOrder
    steps: int
    end: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int


def make_plan(config: Config, count: int, stop_at: int | None = None) -> Plan:
    """Makes the plan of a run with `count` training images, or tiles of them.

    It stops after `stop_at` updates if that is before the end. Raises ConfigError if a batch is
    larger than the training set.
    """
    train = config.train
    if train.batch_size > count:
        raise ConfigError(
            f"train.batch_size: {train.batch_size} is more than the {count} training images (those "
            "of data.calibration_fraction do not count); lower it or add images"
        )
    order = BatchOrder(config.seed, count, train.batch_size)
    steps = total_steps(config, count)
    end = steps if stop_at is None else min(steps, stop_at)
    saving = (train.checkpoint_every, train.keep_checkpoints)
    return Plan(order, steps, end, train.log_every, *saving)


def total_steps(config: Config, count: int) -> int:
    """Number of updates: `train.steps`, or `train.epochs` passes over `count` images."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None
    return config.train.epochs * (count // config.train.batch_size)


def train(
    config: Config,
    networks: Networks,
    images: np.ndarray | Tiles,
    *,
    run: Path | Callable[[], Path] | None = None,
    mesh: Mesh | None = None,
    category: str = "",
    stop_at: int | None = None,
    log: Callable[[str], None] = print,
) -> TrainState:
    """Trains, or resumes from the last checkpoint of a run.

    Args:
        config: a validated config.
        networks: the modules of the config.
        images: training images or their tiles, uint8 ``(n, H, W, C)`` in 0 to 255.
        run: the folder of an open run, or a function that opens the run and returns its folder; it
            is called after the checks. Checkpoints and logs go there; None reads and writes none.
        mesh: the devices; by default all of them, as `config.mesh` says.
        category: a name for the progress bar.
        stop_at: stop (with a checkpoint) after this many updates, as if interrupted.
        log: receives progress messages.

    Returns:
        The state after the last update.

    Raises:
        ConfigError: if the batch does not fit the images or the devices, or the train step or the
            images do not fit the memory of the devices.
        CheckpointError: if no checkpoint of the run is sound.
        Interrupted: on the command line, if a signal asked for a stop; the last step is saved.
        NonFiniteError: if a tensor is not finite; the step's metrics are saved, its state is not.
        SaveError: if a checkpoint or log cannot be written.
    """
    mesh = mesh or sharding.make_mesh(fields=config.mesh)
    plan = make_plan(config, len(images), stop_at)
    batch_shape = (plan.order.batch_size, *images.shape[1:])
    program = build_program(networks, step_spec(config), batch_shape, mesh)
    log(program.describe())
    source = open_source(config.data.on_device, images, plan.order, program)
    signals.check()
    return _train_in_run(plan, program, source, run() if callable(run) else run, category, log)


def _train_in_run(
    plan: Plan,
    program: Program,
    source: BatchSource,
    run: Path | None,
    category: str,
    log: Callable[[str], None],
) -> TrainState:
    # Every process checks its metrics; only the first one writes.
    own = run if processes.is_first() else None
    every, size = plan.log_every, plan.order.batch_size
    health = HealthCheck(program.memory_sizes)
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if run is not None:
            keep = plan.keep_checkpoints if own else None
            checkpoints = stack.enter_context(Checkpoints(run, keep))
        state = _restore_or_init(program, plan, source, checkpoints, log)
        steps = range(int(state.step), plan.end)
        metrics_log = stack.enter_context(
            MetricsLog(own, steps.start, every=every, batch_size=size, health=health)
        )
        take = stack.enter_context(open_pipeline(source, steps))
        progress = stack.enter_context(Progress(category, steps, size))
        state = _loop(program, plan, state, take, checkpoints, metrics_log, progress)
        metrics_log.warn_of_slow_data()
    done = int(state.step)
    saved = ", which is saved" if run is not None and done > 0 else ""
    signals.check(f" at step {done} of {plan.steps}{saved}")
    return state


def _restore_or_init(
    program: Program,
    plan: Plan,
    source: BatchSource,
    checkpoints: Checkpoints | None,
    log: Callable[[str], None],
) -> TrainState:
    if checkpoints is None or checkpoints.latest_step() is None:
        return first_state(program, plan.order.seed, source.read(0))
    restored: list[TrainState] = []
    # The first process moves damaged checkpoints away before the others look.
    processes.in_first(lambda: restored.append(checkpoints.restore(program.shapes)))
    state = restored[0] if restored else checkpoints.restore(program.shapes)
    log(f"resuming at step {int(state.step)} of {plan.steps}")
    return state


def first_state(program: Program, seed: int, batch: jax.Array) -> TrainState:
    """Makes the state at step 0 of a run.

    The memory items are scaled to the run's first batch, uint8 ``(B, H, W, C)``.
    """
    key = jax.random.fold_in(jax.random.key(seed), _INIT_STREAM)
    return program.init(key, batch)


def _loop(
    program: Program,
    plan: Plan,
    state: TrainState,
    take: Take,
    checkpoints: Checkpoints | None,
    metrics_log: MetricsLog,
    progress: Progress,
) -> TrainState:
    key = _step_key(plan.order.seed, program.mesh)
    stop = processes.Stop(program.mesh)
    done = int(state.step)
    last = stop() or done >= plan.end
    while not last:
        batch, waited = take(state.step)
        metrics_log.wait(waited)
        state, metrics, finite = program.step(state, batch, key)
        done += 1
        if done % (_BALANCE_EVERY * plan.log_every) == 0:
            metrics = metrics | program.loss_gradients(state, batch, key)
        metrics_log.add(done, metrics, finite)
        line_due = progress.due()
        if checkpoints is not None:
            checkpoints.check()
        last = done == plan.end or stop()
        if done % plan.log_every == 0 or last:
            progress.show(done, metrics_log.flush(lap=True))
        elif line_due:
            progress.show(done, metrics_log.flush())
        if done % plan.checkpoint_every == 0 or last:
            metrics_log.flush()
            metrics_log.sync()
            # No metric of a step covers the result of the last update yet.
            if name := _finiteness(state).first_offender():
                raise NonFiniteError(
                    f"step {done}: {name} is not finite after the update; training stopped and "
                    "this step is not saved. Lower train.learning_rate"
                )
            if checkpoints is not None:
                checkpoints.save(state)
    return state


def _step_key(seed: int, mesh: Mesh) -> jax.Array:
    """The random key of a run's steps, on every device of the mesh."""
    key = jax.random.fold_in(jax.random.key(seed), _STEP_STREAM)
    data = np.asarray(jax.random.key_data(key))
    return jax.random.wrap_key_data(sharding.place_whole(data, mesh))


_finiteness = jax.jit(lambda state: finiteness(("", state)))
