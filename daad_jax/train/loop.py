"""The training loop: batches in, checkpoints and metrics out."""

import contextlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from daad_jax.config import Config
from daad_jax.errors import ConfigError, NonFiniteError
from daad_jax.models.build import Networks
from daad_jax.runtime import processes, sharding, signals
from daad_jax.train.batches import BatchOrder
from daad_jax.train.health import HealthCheck
from daad_jax.train.input_pipeline import BatchSource, Take, open_pipeline, open_source
from daad_jax.train.metrics_log import MetricsLog
from daad_jax.train.program import Program, build_program
from daad_jax.train.state import TrainState
from daad_jax.train.step import step_spec
from daad_jax.workdir.checkpoint import Checkpoints
from daad_jax.workdir.run import Run

_INIT_STREAM = 0
_STEP_STREAM = 1


class Plan(NamedTuple):
    """Which updates a run makes, and when it logs and saves; a value.

    Attributes:
        order: which images make which batch.
        steps: number of updates of the whole run.
        end: number of updates after which this call stops.
        log_every: steps between lines of metrics.
        checkpoint_every: steps between checkpoints; there is one after the last step too.
        keep_checkpoints: how many checkpoints are kept.
    """

    order: BatchOrder
    steps: int
    end: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int


def make_plan(config: Config, count: int, stop_at: int | None = None) -> Plan:
    """Makes the plan of a run.

    Args:
        config: a validated config.
        count: number of training images.
        stop_at: number of updates after which to stop, if that is before the end.

    Raises:
        ConfigError: if a batch is larger than the training set.
    """
    train = config.train
    if train.batch_size > count:
        raise ConfigError(
            f"train.batch_size: {train.batch_size} is more than the {count} training images; lower "
            "it or add images"
        )
    order = BatchOrder(config.seed, count, train.batch_size)
    steps = total_steps(config, count)
    end = steps if stop_at is None else min(steps, stop_at)
    return Plan(order, steps, end, train.log_every, train.checkpoint_every, train.keep_checkpoints)


def total_steps(config: Config, count: int) -> int:
    """Number of updates: `train.steps`, or `train.epochs` passes over `count` images."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None
    return config.train.epochs * (count // config.train.batch_size)


def train(
    config: Config,
    networks: Networks,
    images: np.ndarray,
    *,
    run: Run | Callable[[], Run] | None = None,
    mesh: Mesh | None = None,
    category: str = "",
    stop_at: int | None = None,
    log: Callable[[str], None] = print,
) -> TrainState:
    """Trains, or resumes from the last checkpoint of a run.

    Args:
        config: a validated config.
        networks: the modules of the config.
        images: training images, uint8 ``(n, H, W, C)`` in 0 to 255.
        run: an open run, or a function that opens it once config, memory and devices are known to
            fit; its folder gets checkpoints and logs. With None nothing is read or written.
        mesh: the devices; by default all of them.
        category: a name for the progress bar.
        stop_at: stop (with a checkpoint) after this many updates, as if interrupted.
        log: receives progress messages.

    Returns:
        The state after the last update.

    Raises:
        ConfigError: if the batch does not fit the images or the devices, or the program or the
            images that should stay on the devices do not fit their memory.
        CheckpointError: if no checkpoint of the run is sound.
        Interrupted: on the command line, if a signal asked for a stop; the last step is saved.
        NonFiniteError: if a tensor is not finite; the step's metrics are written, no checkpoint is.
        SaveError: if a checkpoint or log cannot be written.
    """
    mesh = mesh or sharding.make_mesh()
    plan = make_plan(config, len(images), stop_at)
    batch_shape = (plan.order.batch_size, *images.shape[1:])
    program = build_program(networks, step_spec(config), batch_shape, mesh)
    log(program.describe())
    source = open_source(config.data.on_device, images, plan.order, program)
    signals.check()
    return _follow(plan, program, source, run() if callable(run) else run, category, log)


def _follow(
    plan: Plan,
    program: Program,
    source: BatchSource,
    run: Run | None,
    category: str,
    log: Callable[[str], None],
) -> TrainState:
    with _open_checkpoints(run, plan) as checkpoints:
        state = _restore_or_init(program, plan, source, checkpoints, log)
        steps = range(int(state.step), plan.end)
        with (
            _open_log(run, program, plan, steps.start) as metrics_log,
            open_pipeline(source, steps) as take,
            _progress_bar(steps, category) as bar,
        ):
            state = _loop(program, plan, state, take, checkpoints, metrics_log, bar)
            metrics_log.warn_of_slow_data()
    done = int(state.step)
    saved = ", which is saved" if run is not None and done > 0 else ""
    signals.check(f" at step {done} of {plan.steps}{saved}")
    return state


def _open_checkpoints(
    run: Run | None, plan: Plan
) -> contextlib.AbstractContextManager[Checkpoints | None]:
    if run is None:
        return contextlib.nullcontext()
    return Checkpoints(run.folder, plan.keep_checkpoints if processes.is_first() else None)


def _open_log(run: Run | None, program: Program, plan: Plan, step: int) -> MetricsLog:
    """Every process checks its metrics; only the first one writes them."""
    return MetricsLog(
        run.folder if run is not None and processes.is_first() else None,
        step,
        every=plan.log_every,
        batch_size=plan.order.batch_size,
        health=HealthCheck(program.memory_sizes),
    )


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

    Args:
        program: of the run.
        seed: the run's seed.
        batch: the run's first batch, uint8 ``(B, H, W, C)``; memory items are scaled to it.
    """
    key = jax.random.fold_in(jax.random.key(seed), _INIT_STREAM)
    return program.init(key, batch)


def _progress_bar(steps: range, category: str) -> tqdm:
    shown = {"total": steps.stop, "initial": steps.start, "desc": category, "unit": "step"}
    return tqdm(**shown, disable=None, file=sys.stderr)


def _loop(
    program: Program,
    plan: Plan,
    state: TrainState,
    take: Take,
    checkpoints: Checkpoints | None,
    metrics_log: MetricsLog,
    bar: tqdm,
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
        metrics_log.add(done, metrics, finite)
        bar.update()
        if checkpoints is not None:
            checkpoints.check()
        last = done == plan.end or stop()
        if done % plan.log_every == 0 or last:
            newest = metrics_log.flush(lap=True)
            bar.set_postfix_str(_postfix(newest, plan.order.batch_size, bar), refresh=False)
        if done % plan.checkpoint_every == 0 or last:
            metrics_log.flush()
            metrics_log.sync()
            _check_finite(state, done)
            if checkpoints is not None:
                checkpoints.save(state)
    return state


def _step_key(seed: int, mesh: Mesh) -> jax.Array:
    """The random key of a run's steps, on every device of the mesh."""
    key = jax.random.fold_in(jax.random.key(seed), _STEP_STREAM)
    data = np.asarray(jax.random.key_data(key))
    return jax.random.wrap_key_data(sharding.place_whole(data, mesh))


def _check_finite(state: TrainState, step: int) -> None:
    """Checks the result of the last update, which no metric of a step covers yet."""
    for path, finite in jax.tree_util.tree_leaves_with_path(_all_finite(state)):
        if not finite:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise NonFiniteError(
                f"step {step}: {name} is not finite after the update; training stopped and this "
                "step is not saved. Lower train.learning_rate"
            )


@jax.jit
def _all_finite(state: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), state)


def _postfix(metrics: dict[str, float], batch_size: int, bar: tqdm) -> str:
    rate = (bar.format_dict.get("rate") or 0.0) * batch_size
    shown = {"rec": "loss/rec", "D(x)": "discriminator/real", "D(x̂)": "discriminator/fake"}
    parts = [f"{name} {metrics[key]:.4g}" for name, key in shown.items() if key in metrics]
    return ", ".join([*parts, f"{rate:.0f} images/s"])
