"""The compiled train step of a run on a mesh, and whether it fits the devices."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled

from daad_jax.errors import ConfigError
from daad_jax.models.autoencoder import normalize_images, scale_memories
from daad_jax.models.build import Networks
from daad_jax.runtime import memory, sharding
from daad_jax.runtime.compiler import compiler_options
from daad_jax.train.health import MemorySize
from daad_jax.train.state import TrainState, count_parameters, init_state, state_shapes
from daad_jax.train.step import StepResult, StepSpec, make_train_step

_GIB = 1 << 30
# It runs once: on a CPU, optimising it takes longer than compiling the train step.
_INIT_OPTIONS = {"xla_backend_optimization_level": 0}

BatchShape = tuple[int, int, int, int]


class Program(NamedTuple):
    """The compiled functions of a run.

    Attributes:
        mesh: the data-parallel mesh.
        shapes: the state's shapes, types and shardings.
        init: ``(key, uint8 images (B, H, W, C)) -> state``, created sharded; jitted.
        step: ``(state, uint8 images (B, H, W, C), key) -> StepResult``; compiled, the state is
            donated.
        parameters: parameter counts, see `daad_jax.train.state.count_parameters`.
        memory_sizes: numbers of items and reads of each memory, by scale.
        memory_bytes: memory that training needs on one device, as the compiler reports it for one
            step; on a CPU plus the copy of the state that a checkpoint is written from.
    """

    mesh: Mesh
    shapes: TrainState
    init: Callable[[jax.Array, jax.Array], TrainState]
    step: Compiled
    parameters: dict[str, int]
    memory_sizes: dict[str, MemorySize]
    memory_bytes: int

    def describe(self) -> str:
        """One line: parameters of each part, memory and devices."""
        parts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items() if count)
        device = self.mesh.devices.flat[0]
        return (
            f"{sum(self.parameters.values()):,} parameters ({parts}); about "
            f"{self.memory_bytes / _GIB:.2f} GiB on each of {self.mesh.size} "
            f"{device.device_kind} device(s)"
        )


@functools.lru_cache(maxsize=2)
def build_program(
    networks: Networks, spec: StepSpec, batch_shape: BatchShape, mesh: Mesh
) -> Program:
    """Compiles the train step; equal arguments share one program.

    Args:
        networks: the modules.
        spec: losses, optimiser and augmentation.
        batch_shape: ``(B, H, W, C)`` of a batch over all devices.
        mesh: the devices.

    Raises:
        ConfigError: if the batch cannot be split over the mesh, or the step needs more memory
            than a device has.
    """
    if batch_shape[0] % mesh.size:
        raise ConfigError(
            f"train.batch_size: {batch_shape[0]} cannot be split over {mesh.size} devices; make it "
            "a multiple"
        )
    memory_sizes = _memory_sizes(networks, batch_shape[0])
    init = _make_init(networks, spec)
    shapes = state_shapes(init, batch_shape[1:], mesh)
    parameters = count_parameters(shapes)
    # Parameters, gradients and Adam's two moments: a cheap lower bound before compiling.
    _check_memory(16 * sum(parameters.values()), networks, mesh)
    train_step = make_train_step(networks, spec)
    whole, split = sharding.replicated(mesh), sharding.batched(mesh)
    images = jax.ShapeDtypeStruct(batch_shape, jnp.uint8, sharding=split)
    step = _compile(train_step, (shapes, images, jax.eval_shape(jax.random.key, 0)), mesh)
    memory_bytes = _step_memory(step, shapes, mesh)
    _check_memory(memory_bytes, networks, mesh)
    options = _INIT_OPTIONS if _on_cpu(mesh) else None
    jitted = jax.jit(
        init, in_shardings=(whole, split), out_shardings=whole, compiler_options=options
    )
    return Program(mesh, shapes, jitted, step, parameters, memory_sizes, memory_bytes)


def _make_init(networks: Networks, spec: StepSpec) -> Callable[[jax.Array, jax.Array], TrainState]:
    def init(key: jax.Array, images: jax.Array) -> TrainState:
        average = spec.average_decay > 0
        return init_state(networks, spec.adam, key, normalize_images(images), average=average)

    return init


def _compile(
    train_step: Callable[..., StepResult], arguments: tuple[TrainState, Any, Any], mesh: Mesh
) -> Compiled:
    """Compiles a step of state, images and key; the state is donated, all results are whole."""
    whole = sharding.replicated(mesh)
    jitted = jax.jit(
        train_step,
        in_shardings=(whole, arguments[1].sharding, whole),
        out_shardings=whole,
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )
    return jitted.lower(*arguments).compile()


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _memory_sizes(networks: Networks, batch_size: int) -> dict[str, MemorySize]:
    return {
        name: MemorySize(one.items * math.prod(one.groups), batch_size * math.prod(one.rates))
        for name, one in scale_memories(networks.generator).items()
    }


def _step_memory(compiled: Compiled, shapes: TrainState, mesh: Mesh) -> int:
    """Memory of a step; on a CPU plus the copy of the state that a save in the background holds."""
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
    return max(int(used), state) + (state if _on_cpu(mesh) else 0)


def _check_memory(needed: int, networks: Networks, mesh: Mesh) -> None:
    available = available_memory(mesh)
    if needed <= available:
        return
    field, change = "train.batch_size", "lower data.image_size or train.batch_size"
    memories = list(scale_memories(networks.generator).values())
    if memories:
        field = "memory.items"
        change = (
            f"lower memory.items ({memories[0].items}), raise memory.division_rates "
            f"({memories[0].rates} at the finest scale), or {change}"
        )
    raise ConfigError(
        f"{field}: this config needs about {needed / _GIB:.1f} GiB on each device and "
        f"{available / _GIB:.1f} GiB are available; {change}"
    )


def available_memory(mesh: Mesh) -> int:
    """Bytes that each device of the mesh can still allocate."""
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return memory.available() // len(mesh.local_devices)
