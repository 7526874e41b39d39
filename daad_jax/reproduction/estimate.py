"""Expected time and memory of runs on this machine, without training them."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.data import load_dataset
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.sources.layout import list_pictures
from daad_jax.errors import ConfigError
from daad_jax.models.build import build_networks
from daad_jax.reports.grid_table import Line
from daad_jax.reproduction.items import Run
from daad_jax.runtime import sharding
from daad_jax.train.loop import total_steps
from daad_jax.train.program import Program, build_program
from daad_jax.train.step import step_spec

_GIB = 1 << 30
_TIMED_STEPS = 3
_Shape = tuple[Any, ...]


class Estimate(NamedTuple):
    """What one run is expected to take.

    `seconds` is the time of training, None if it cannot run here. `gib` is the memory of training
    in GiB. `measured` says whether the time is that of finished runs of the same shapes on this
    machine. `problem` says why it cannot run.
    """

    seconds: float | None
    gib: float | None
    measured: bool = False
    problem: str = ""


class _Cost(NamedTuple):
    """What a compiled train step costs."""

    flops: float
    gib: float


def estimate(
    runs: Sequence[Run],
    lines: Iterable[Line],
    machine: Mapping[str, Any],
    log: Callable[[str], None],
) -> list[Estimate]:
    """Estimates runs of checked configs, in their order.

    Steps whose shapes have no finished run among `lines` on the same `machine` are compiled, and
    their floating-point operations are counted. One of them is timed for the machine's speed.
    """
    known = _known(lines, machine)
    costs: dict[_Shape, _Cost | str] = {}
    speed: float | None = None
    for run in runs:
        shape = _shape(run.config)
        if shape not in costs:
            log(f"compiling {run.subject.category} {run.model}")
            program = _program(run.config)
            costs[shape] = program if isinstance(program, str) else _cost(program)
            if speed is None and shape not in known and not isinstance(program, str):
                speed = _cost(program).flops / _step_seconds(program, run.config)
    counts: dict[str, int] = {}
    return [_estimate(run.config, costs, known, speed, counts) for run in runs]


def _estimate(
    config: Config,
    costs: Mapping[_Shape, _Cost | str],
    known: Mapping[_Shape, float],
    speed: float | None,
    counts: dict[str, int],
) -> Estimate:
    shape = _shape(config)
    cost = costs[shape]
    if isinstance(cost, str):
        return Estimate(None, None, problem=cost)
    steps = total_steps(config, 0 if config.train.steps else _count(config, counts))
    if shape in known:
        return Estimate(steps * known[shape], cost.gib, measured=True)
    assert speed is not None
    return Estimate(steps * cost.flops / speed, cost.gib)


def _shape(config: Config) -> _Shape:
    """What a compiled train step depends on."""
    devices = sharding.make_mesh().size
    batch = (config.train.batch_size, *config.data.network_size, config.data.channels)
    return build_networks(config, devices=devices), step_spec(config), batch


def _program(config: Config) -> Program | str:
    """The compiled step, or why it cannot run on this machine."""
    networks, spec, batch = _shape(config)
    try:
        return build_program(networks, spec, batch, sharding.make_mesh())
    except ConfigError as error:
        return str(error)


def _cost(program: Program) -> _Cost:
    analysis = program.step.cost_analysis() or {}
    return _Cost(float(analysis.get("flops", 0.0)), program.memory_bytes / _GIB)


def _step_seconds(program: Program, config: Config) -> float:
    """The median time of a few steps on black images."""
    _, _, batch = _shape(config)
    images, key = jnp.zeros(batch, jnp.uint8), jax.random.key(0)
    images = jax.device_put(images, sharding.batched(program.mesh))
    state, times = program.init(key, images), []
    for _ in range(_TIMED_STEPS + 1):
        start = time.perf_counter()
        state = jax.block_until_ready(program.step(state, images, key)).state
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _known(lines: Iterable[Line], machine: Mapping[str, Any]) -> dict[_Shape, float]:
    """Seconds per step of the shapes that have been trained on this machine."""
    found: dict[_Shape, list[float]] = {}
    for line in lines:
        if "cost" not in line or line["cost"]["first_step"] or line["machine"] != machine:
            continue
        config = config_lib.from_dict(line["config"])
        seconds = line["cost"]["train_seconds"] / line["cost"]["steps"]
        found.setdefault(_shape(config), []).append(seconds)
    return {shape: statistics.median(seconds) for shape, seconds in found.items()}


def _count(config: Config, counts: dict[str, int]) -> int:
    """The number of training images of a category."""
    key = f"{config.data.source} {config.data.root} {config.data.category}"
    if key not in counts:
        if config.data.source == "folder":
            found = list_pictures(config.data, config.data.category, BadFiles(config.data))
            counts[key] = len(found.split.train)
        else:
            counts[key] = len(load_dataset(config.data, config.data.category).train)
    return counts[key]
