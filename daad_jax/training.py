"""The training loop: batches in, checkpoints and metrics out."""

import contextlib
import itertools
import json
import math
import operator
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from daad_jax import feed, interruption, lock, logs, processes, sharding
from daad_jax.checkpoint import (
    Checkpoints,
    check_same_images,
    check_same_run,
    load_config,
    save_config,
)
from daad_jax.config import Config
from daad_jax.data import Dataset, batches
from daad_jax.errors import NonFiniteError, warn
from daad_jax.generator import Generator
from daad_jax.program import Program, build_program
from daad_jax.state import TrainState
from daad_jax.step import Metrics
from daad_jax.tensorboard import ScalarWriter
from daad_jax.watch import Bank, Finiteness, Watch

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_INIT_STREAM = 0
_STEP_STREAM = 1


def total_steps(config: Config, count: int) -> int:
    """Number of updates: `train.steps`, or `train.epochs` passes over `count` images."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None
    return config.train.epochs * batches.steps_per_epoch(count, config.train.batch_size)


def dispatches(start: int, end: int, config: Config) -> Iterator[range]:
    """The steps from `start` to before `end`, in order, as what the devices are given at once.

    That is `train.steps_per_dispatch` of them, and one where so many would pass the end or a step
    at which a checkpoint is due. So a run that goes on from a checkpoint or after a signal is given
    the same steps at once as an undisturbed one.
    """
    size, every = config.train.steps_per_dispatch, config.train.checkpoint_every
    while start < end:
        edge = min(end, start + every - start % every)
        count = size if start + size <= edge else 1
        yield range(start, start + count)
        start += count


def train(
    config: Config,
    dataset: Dataset,
    workdir: Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    stop_at: int | None = None,
    log: Callable[[str], None] = print,
) -> TrainState:
    """Trains, or goes on where the workdir's last checkpoint stands.

    Args:
        config: validated.
        dataset: its `train` images are used.
        workdir: gets ``config.json``, ``checkpoints/``, ``metrics.jsonl``, ``timings.jsonl`` and
            ``tensorboard/``.
        mesh: the devices; all of them by default.
        stop_at: leave (with a checkpoint) once this many updates are made, as if interrupted.
        log: receives lines for people.

    Returns:
        The last state.

    Raises:
        ConfigError: if the config, or the images that are to stay there, do not fit the devices.
        CheckpointError: if the workdir holds another run, or one that cannot be read, or another
            process is at work there.
        Interrupted: on the command line, if a signal asked for it; the step that ran is saved.
        NonFiniteError: when a loss or gradient is not finite; its metrics are written and no
            checkpoint is.
        SaveError: when a checkpoint cannot be written; at the latest before this returns.
    """
    check_same_run(workdir, config)
    program = build_program(config, mesh or sharding.make_mesh())
    log(describe(program))
    if config.train.steps_per_dispatch > 1:
        program.several(config.train.steps_per_dispatch)
    on_devices = feed.stays_on_devices(config, dataset.train.images, program)
    with contextlib.ExitStack() as held:
        processes.in_first(lambda: held.enter_context(_begin(config, dataset, workdir)))
        if not processes.is_first():
            load_config(workdir)  # It has to lie where every process sees it.
            check_same_images(workdir, dataset.train.images)
        interruption.check()
        state = _train(program, config, dataset, workdir, stop_at, on_devices, log)
    done, steps = int(state.step), total_steps(config, len(dataset.train))
    interruption.check(f" at step {done} of {steps}" + ", which is saved" * (done > 0))
    return state


@contextlib.contextmanager
def _begin(config: Config, dataset: Dataset, workdir: Path) -> Iterator[None]:
    with lock.hold(workdir):
        check_same_run(workdir, config)  # Another process may have begun a run meanwhile.
        check_same_images(workdir, dataset.train.images)
        save_config(workdir, config, dataset.train.images)
        yield


def _train(
    program: Program,
    config: Config,
    dataset: Dataset,
    workdir: Path,
    stop_at: int | None,
    on_devices: bool,
    log: Callable[[str], None],
) -> TrainState:
    steps = total_steps(config, len(dataset.train))
    end = steps if stop_at is None else min(steps, stop_at)
    keep = config.train.keep_checkpoints if processes.is_first() else None
    with Checkpoints(workdir, keep) as checkpoints:
        if checkpoints.latest_step() is None:
            state = init_program(program, config, dataset)
        else:
            restored: list[TrainState] = []
            # What is damaged the first one puts aside before the others look.
            processes.in_first(lambda: restored.append(checkpoints.restore(program.shapes)))
            state = restored[0] if restored else checkpoints.restore(program.shapes)
            log(f"resuming at step {int(state.step)} of {steps}")
        watch = Watch(_banks(program.networks.generator, config))
        with (
            _log_folder(workdir) as folder,
            MetricsLog(Path(folder) / METRICS_FILE, config, int(state.step), watch) as metrics_log,
        ):
            plan = dispatches(int(state.step), end, config)
            with feed.open_feed(
                config, dataset.train.images, program.mesh, plan, on_devices=on_devices
            ) as take:
                state = _loop(program, config, dataset, state, end, take, checkpoints, metrics_log)
            if processes.is_first() and (advice := metrics_log.timings.advice()):
                warn(advice)
            return state


def _log_folder(workdir: Path) -> contextlib.AbstractContextManager[Path | str]:
    """The workdir; for all processes but the first a folder of their own, which is thrown away."""
    if processes.is_first():
        return contextlib.nullcontext(workdir)
    return tempfile.TemporaryDirectory()


def init_program(program: Program, config: Config, dataset: Dataset) -> TrainState:
    """Makes the state at step 0 of a run; memory items are scaled by the first batch."""
    key = jax.random.fold_in(jax.random.key(config.seed), _INIT_STREAM)
    return program.init(key, training_batch(program, config, dataset, 0))


def training_batch(program: Program, config: Config, dataset: Dataset, step: int) -> jax.Array:
    """The uint8 batch of a step, split over the mesh: a pure function of the seed and the step."""
    return feed.streamed(config, dataset.train.images, program.mesh)(range(step, step + 1))


def describe(program: Program) -> str:
    """One line: parameters of each part, memory and devices."""
    parts = ", ".join(f"{name} {count:,}" for name, count in program.parameters.items() if count)
    total = sum(program.parameters.values())
    device = program.mesh.devices.flat[0]
    return (
        f"{total:,} parameters ({parts}); about {program.memory_bytes / 2**30:.2f} GiB on each of "
        f"{program.mesh.size} {device.device_kind} device(s)"
    )


def _banks(generator: Generator, config: Config) -> dict[str, Bank]:
    """What the counts of each memory in the metrics are held against."""
    batch = config.train.batch_size
    return {
        f"scale_{index + 1}": Bank(
            memory.items * math.prod(memory.groups), batch * math.prod(memory.rates)
        )
        for index, memory in enumerate(generator.memories)
        if memory is not None
    }


def _loop(
    program: Program,
    config: Config,
    dataset: Dataset,
    state: TrainState,
    end: int,
    take: feed.Take,
    checkpoints: Checkpoints,
    metrics_log: "MetricsLog",
) -> TrainState:
    key = jax.jit(
        lambda: jax.random.fold_in(jax.random.key(config.seed), _STEP_STREAM),
        out_shardings=sharding.replicated(program.mesh),
    )()
    start = int(state.step)
    bar = tqdm(
        total=end, initial=start, desc=dataset.category, unit="step", disable=None, file=sys.stderr
    )
    stop = processes.Stop(program.mesh)
    last = stop() or start == end
    with bar:
        while not last:
            fed = take(state.step)
            metrics_log.timings.wait(fed.waited)
            count = len(fed.steps)
            run = program.step if count == 1 else program.several(count)
            state, metrics, finite = run(state, fed.batch, key)
            metrics_log.add(fed.steps, metrics, finite)
            done = fed.steps.stop
            bar.update(count)
            checkpoints.check()
            last = done == end or stop()
            if done % config.train.log_every < count or last:
                newest = metrics_log.flush(lap=True)
                bar.set_postfix_str(_postfix(newest, config, bar), refresh=False)
            if done % config.train.checkpoint_every == 0 or last:
                metrics_log.flush()
                metrics_log.sync()
                _check_finite(state, done, config)
                checkpoints.save(state)
    return state


def _check_finite(state: TrainState, step: int, config: Config) -> None:
    """A step's losses are those before its update; what the update made is looked at here."""
    for path, finite in jax.tree_util.tree_leaves_with_path(_all_finite(state)):
        if not finite:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise NonFiniteError(
                f"step {step}: {name} is not finite after the update; training stopped without "
                f"saving it. Lower train.learning_rate ({config.train.learning_rate})"
            )


@jax.jit
def _all_finite(state: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), state)


def _postfix(metrics: dict[str, float], config: Config, bar: tqdm) -> str:
    rate = (bar.format_dict.get("rate") or 0.0) * config.train.batch_size
    shown = {"rec": "loss/rec", "D(x)": "discriminator/real", "D(x̂)": "discriminator/fake"}
    parts = [f"{name} {metrics[key]:.4g}" for name, key in shown.items() if key in metrics]
    return ", ".join([*parts, f"{rate:.0f} images/s"])


class MetricsLog:
    """``metrics.jsonl``: one line for every `train.log_every`-th step, after the step's number.

    ``tensorboard/`` beside it gets the same numbers, and those of ``timings.jsonl``.

    Metrics stay on the device until `flush`, so that logging does not hold up the steps; every
    step is then checked, whether it is written or not.
    """

    def __init__(self, path: Path, config: Config, step: int, watch: Watch) -> None:
        """Opens the file; lines of steps after `step`, which will be made again, are dropped."""
        self._path, self._config, self._watch = path, config, watch
        self._pending: list[tuple[range, Metrics, Finiteness]] = []
        self._last: dict[str, float] = {}
        self._file = logs.reopen(path, step)
        self.timings = logs.Timings(path.parent, config.train.batch_size, step)
        self._events = ScalarWriter(path.parent / TENSORBOARD, step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        with logs.writing(self._path):
            self._file.close()
        self.timings.close()
        with logs.writing(self._path.parent / TENSORBOARD):
            self._events.close()

    def add(self, steps: range, metrics: Metrics, finite: Finiteness) -> None:
        """Remembers what a dispatch of steps, counted from 0, returned, still on the device."""
        self._pending.append((steps, metrics, finite))

    def flush(self, *, lap: bool = False) -> dict[str, float]:
        """Writes what is due and checks all.

        Args:
            lap: whether an interval of the timings ends here.

        Returns:
            The newest step's metrics.

        Raises:
            NonFiniteError: for the first step with a tensor or metric that is not finite, naming
                the first of them, once its metrics are written.
        """
        fetched = [*_each_step(jax.device_get(self._pending))]
        every = self._config.train.log_every
        times = self.timings.lap(fetched[-1][0]) if lap else {}
        for step, metrics, finite in fetched:
            values = {name: float(value) for name, value in metrics.items()}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            offender = finite.first_offender() or next(iter(bad), None)
            if offender or step % every == 0:
                last_due = step + every > fetched[-1][0]
                self._write(step, values, times if last_due else {})
            if offender:
                self._pending.clear()
                raise NonFiniteError(
                    f"step {step}: {offender} is not finite; training stopped without saving it. "
                    f"Lower train.learning_rate ({self._config.train.learning_rate}) or look at "
                    "the images; the last checkpoint is sound"
                )
            self._watch.add(step, values)
            self._last = values
        self._pending.clear()
        return self._last

    def sync(self) -> None:
        """Writes the events that wait, so that no checkpoint of a killed run is ahead of them."""
        with logs.writing(self._path.parent / TENSORBOARD):
            self._events.flush()

    def _write(self, step: int, values: dict[str, float], times: dict[str, float]) -> None:
        # JSON has no NaN; what is not finite is written as a string.
        line = {
            name: value if math.isfinite(value) else str(value) for name, value in values.items()
        }
        with logs.writing(self._path):
            self._file.write(json.dumps({"step": step, **line}) + "\n")
            self._file.flush()
        times = {f"time/{name}": value for name, value in times.items()}
        with logs.writing(self._path.parent / TENSORBOARD):
            self._events.write(step, values | times)


def _each_step(
    fetched: list[tuple[range, Metrics, Finiteness]],
) -> Iterator[tuple[int, Metrics, Finiteness]]:
    """What each update returned, after its number, from 1; that of several comes stacked."""
    for steps, metrics, finite in fetched:
        if len(steps) == 1:
            yield steps.stop, metrics, finite
            continue
        for index, step in enumerate(steps):
            yield step + 1, *jax.tree.map(operator.itemgetter(index), (metrics, finite))


def read_metrics(workdir: Path) -> dict[str, np.ndarray]:
    """Reads ``metrics.jsonl`` back, as columns.

    Args:
        workdir: of one run.

    Returns:
        ``step`` and every metric, float64 ``(lines,)``, NaN where a line does not have it or it
        was not finite; empty when there is no file. Lines that cannot be read are left out.
    """
    try:
        lines = logs.read_lines(workdir / METRICS_FILE)
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in lines if math.isfinite(logs.line_step(line))]
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return {name: np.array([float(row.get(name, "nan")) for row in rows]) for name in names}
