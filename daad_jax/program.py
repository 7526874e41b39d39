"""The compiled train step of a config on a mesh, and whether it fits the device."""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled

from daad_jax import config as config_lib
from daad_jax import host_memory, sharding
from daad_jax.compiling import compiler_options
from daad_jax.config import Config
from daad_jax.errors import ConfigError
from daad_jax.state import (
    Networks,
    TrainState,
    build_networks,
    build_optimizer,
    count_parameters,
    init_state,
)
from daad_jax.step import normalize_images, step_spec, train_step, train_steps

_GIB = 1 << 30
# Only these decide what is compiled, so that runs that differ elsewhere share one program.
_COMPILED_FIELDS = (
    *("data.image_size", "data.channels", "data.flip_horizontal", "data.flip_vertical"),
    *("train.batch_size", "train.learning_rate", "train.beta1", "train.beta2"),
    "train.average_decay",
)
_COMPILED_SECTIONS = ("model", "memory", "discriminator", "loss")
# It runs once: on a CPU, optimising it takes longer than compiling the train step.
_INIT_OPTIONS = {"xla_backend_optimization_level": 0}


class Program(NamedTuple):
    """What a config compiles to.

    Attributes:
        networks: the modules.
        mesh: the data-parallel mesh.
        shapes: the state's shapes and shardings.
        init: jitted ``(key, uint8 images) -> state``, created sharded.
        step: compiled ``(state, uint8 images, key) -> (state, metrics, finite)``; the state is
            donated.
        several: from K to the same of K updates, see `daad_jax.step.train_steps`; each K is
            compiled when it is first asked for, which raises as `build_program` does.
        parameters: parameter counts, see `daad_jax.state.count_parameters`.
        memory_bytes: what training needs on one device, by the compiler's own account of a step;
            on a CPU with the copy that a checkpoint is written from.
    """

    networks: Networks
    mesh: Mesh
    shapes: TrainState
    init: jax.stages.Wrapped
    step: Compiled
    several: Callable[[int], Compiled]
    parameters: dict[str, int]
    memory_bytes: int


def build_program(config: Config, mesh: Mesh) -> Program:
    """Compiles the train step, or returns the one compiled before for an equal config.

    Raises:
        ConfigError: if the batch cannot be split over the mesh, or the step needs more memory
            than the device has.
    """
    if config.train.batch_size % mesh.size:
        raise ConfigError(
            f"train.batch_size: {config.train.batch_size} cannot be split over {mesh.size} "
            "devices; make it a multiple"
        )
    flat = config_lib.flatten(config_lib.to_dict(config))
    kept = {
        path: value
        for path, value in flat.items()
        if path in _COMPILED_FIELDS or path.split(".")[0] in _COMPILED_SECTIONS
    }
    return _build(json.dumps(kept, sort_keys=True), mesh)


@functools.lru_cache(maxsize=2)
def _build(fingerprint: str, mesh: Mesh) -> Program:
    config = config_lib.from_flat(json.loads(fingerprint))
    networks, optimizer = build_networks(config), build_optimizer(config)
    spec, size = step_spec(config), config.data.image_size
    batch_shape = (config.train.batch_size, size, size, config.data.channels)
    whole, split = sharding.replicated(mesh), sharding.batched(mesh)
    images = jax.ShapeDtypeStruct(batch_shape, jnp.uint8, sharding=split)
    key = jax.eval_shape(jax.random.key, 0)
    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def init(key: jax.Array, images: jax.Array) -> TrainState:
        normalized = normalize_images(images)
        return init_state(networks, optimizer, key, normalized, average=spec.average_decay > 0)

    shapes = jax.eval_shape(init, key, images)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes
    )
    parameters = count_parameters(shapes)
    # Parameters, gradients and Adam's two moments: a cheap lower bound before compiling.
    check_memory(16 * sum(parameters.values()), mesh, config)

    def compiled(function: Callable[..., Any], images: jax.ShapeDtypeStruct) -> Compiled:
        step = functools.partial(function, networks, optimizer, spec)
        program = _compile_step(step, (shapes, images, key), mesh)
        check_memory(_step_memory(program, shapes, mesh), mesh, config)
        return program

    @functools.cache
    def several(count: int) -> Compiled:
        shape, split = (count, *batch_shape), sharding.batched(mesh, 1)
        # On a CPU a convolution in a loop is many times slower.
        steps = functools.partial(train_steps, unroll=on_cpu)
        return compiled(steps, jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=split))

    step = compiled(train_step, images)
    return Program(
        networks,
        mesh,
        shapes,
        jax.jit(
            init,
            in_shardings=(whole, split),
            out_shardings=whole,
            compiler_options=_INIT_OPTIONS if on_cpu else None,
        ),
        step,
        several,
        parameters,
        _step_memory(step, shapes, mesh),
    )


def _compile_step(
    step: Callable[..., Any], arguments: tuple[TrainState, jax.ShapeDtypeStruct, Any], mesh: Mesh
) -> Compiled:
    """Compiles a step of state, images and key; the state is donated, and all results are whole."""
    whole = sharding.replicated(mesh)
    jitted = jax.jit(
        step,
        in_shardings=(whole, arguments[1].sharding, whole),
        out_shardings=whole,
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )
    return jitted.lower(*arguments).compile()


def _step_memory(compiled: Compiled, shapes: TrainState, mesh: Mesh) -> int:
    """A step's memory; on a CPU also the copy of the state that a save in the background holds."""
    analysis = compiled.memory_analysis()
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    if analysis is None:
        return state
    used = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )
    copy = state if mesh.devices.flat[0].platform == "cpu" else 0
    return max(int(used), state) + copy


def check_memory(needed: int, mesh: Mesh, config: Config) -> None:
    """Refuses what cannot fit.

    Args:
        needed: bytes on each device.
        mesh: the devices.
        config: where the advice looks.

    Raises:
        ConfigError: naming what is needed, what there is, and the fields to change.
    """
    available = available_memory(mesh)
    if needed > available:
        raise ConfigError(
            f"memory.items: this config needs about {needed / _GIB:.1f} GiB on each device and "
            f"{available / _GIB:.1f} GiB are available; lower memory.items "
            f"({config.memory.items}), raise memory.division_rates "
            f"({config.memory.division_rates}), or lower data.image_size "
            f"({config.data.image_size}) or train.batch_size ({config.train.batch_size})"
        )


def available_memory(mesh: Mesh) -> int:
    """Bytes that each device of the mesh can still give."""
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return host_memory.available() // len(mesh.local_devices)
