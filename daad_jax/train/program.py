"""The compiled train step of a run on a mesh, and whether it fits the devices."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from daad_jax.errors import ConfigError
from daad_jax.models.autoencoder import normalize_images, scale_memories
from daad_jax.models.build import Networks
from daad_jax.runtime import memory, sharding
from daad_jax.runtime.compiler import compiler_options
from daad_jax.train.health import MemorySize
from daad_jax.train.state import TrainState, count_parameters, init_state, state_shapes
from daad_jax.train.step import Metrics, StepResult, StepSpec, loss_gradients, make_train_step

_GIB = 1 << 30
# The initialisation runs once. On a CPU, optimising it takes longer than compiling the train step.
_INIT_OPTIONS = {"xla_backend_optimization_level": 0}

BatchShape = tuple[int, int, int, int]


class Program(NamedTuple):
    """The compiled functions of a run.

    Attributes:
        mesh: the mesh of devices.
        shapes: the state's shapes, types and shardings.
        init: ``(key, uint8 images (B, H, W, C)) -> state``, jitted; the state is made on the mesh.
        step: ``(state, uint8 images (B, H, W, C), key) -> StepResult``, compiled; the state is
            donated.
        loss_gradients: `daad_jax.train.step.loss_gradients` with the arguments of `step`, jitted.
        parameters: parameter counts, see `daad_jax.train.state.count_parameters`.
        memory_sizes: numbers of items and reads of each memory, by scale.
        memory_bytes: memory that training needs on one device: what the compiler reports for one
            step and, on a CPU, the copy of the state that a checkpoint is written from.
    """

    mesh: Mesh
    shapes: TrainState
    init: Callable[[jax.Array, jax.Array], TrainState]
    step: Compiled
    loss_gradients: Callable[[TrainState, jax.Array, jax.Array], Metrics]
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

    The batch shape ``(B, H, W, C)`` is that of all devices together. Raises ConfigError if the
    batch cannot be split over the mesh, or the step needs more memory than a device has.
    """
    lowered, shapes, init = lower_step(networks, spec, batch_shape, mesh)
    memories = scale_memories(networks.generator)
    memory_sizes = {
        name: MemorySize(one.items * math.prod(one.groups), batch_shape[0] * math.prod(one.rates))
        for name, one in memories.items()
    }
    # State and gradients: a cheap lower bound before compiling.
    gradients = (shapes.generator.params, shapes.discriminator and shapes.discriminator.params)
    _check_memory(sharding.shard_bytes((shapes, gradients)), networks, mesh)
    try:
        step = compile_step(lowered)
    except MemoryError as error:
        start = f"{_largest_field(networks)}: the step does not fit the devices ({error})"
        raise ConfigError(f"{start}; {_advice(networks, _sizes(batch_shape, mesh))}") from error
    memory_bytes = _step_memory(step, shapes, mesh)
    _check_memory(memory_bytes, networks, mesh, _sizes(batch_shape, mesh))
    places, whole, split = _places(shapes), sharding.replicated(mesh), sharding.batched(mesh)
    options = _INIT_OPTIONS if _on_cpu(mesh) else compiler_options(mesh)
    first = _jit(mesh, init, (whole, split), places, compiler_options=options)
    slopes = functools.partial(loss_gradients, networks, spec)
    slopes = _jit(mesh, slopes, (places, split, whole), whole)
    parameters = count_parameters(shapes)
    return Program(mesh, shapes, first, step, slopes, parameters, memory_sizes, memory_bytes)


def lower_step(
    networks: Networks, spec: StepSpec, batch_shape: BatchShape, mesh: Mesh
) -> tuple[Lowered, TrainState, Callable[[jax.Array, jax.Array], TrainState]]:
    """Traces the train step for a mesh, whose devices need not exist here.

    Returns the step, to be compiled, the state's shapes with their shardings, and the function that
    makes the state from a random key and uint8 images. Raises ConfigError as `build_program` does,
    but looks at no memory.
    """
    if batch_shape[0] % mesh.size:
        raise ConfigError(
            f"train.batch_size: {batch_shape[0]} cannot be split over {mesh.size} devices; make it "
            "a multiple or, with too few images for that, use fewer devices"
        )

    def init(key: jax.Array, images: jax.Array) -> TrainState:
        average = spec.average_decay > 0
        return init_state(networks, spec.adam, key, normalize_images(images), average=average)

    split_moments = spec.adam.split_moments
    shapes = state_shapes(init, batch_shape[1:], mesh, split_moments=split_moments)
    sharding.check_banks(shapes, mesh)
    places, whole, split = _places(shapes), sharding.replicated(mesh), sharding.batched(mesh)
    made = StepResult._make((places, whole, whole))
    train_step = make_train_step(networks, spec)
    step = _jit(mesh, train_step, (places, split, whole), made, donate_argnums=0)
    images = jax.ShapeDtypeStruct(batch_shape, jnp.uint8, sharding=split)
    return step.lower(shapes, images, jax.eval_shape(jax.random.key, 0)), shapes, init


def compile_step(lowered: Lowered) -> Compiled:
    """Compiles a train step. Raises MemoryError if the compiler says that it does not fit."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise MemoryError(str(error).splitlines()[0]) from error


def _places(shapes: TrainState) -> Any:
    return jax.tree.map(lambda one: one.sharding, shapes)


def _jit(
    mesh: Mesh, function: Callable[..., Any], places: Any, results: Any, **options: Any
) -> Any:
    """Jits a function for a mesh; `places` and `results` are the shardings of what it takes."""
    options = {"compiler_options": compiler_options(mesh)} | options
    function = sharding.on_mesh(function, mesh)
    return jax.jit(function, in_shardings=places, out_shardings=results, **options)


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _step_memory(compiled: Compiled, shapes: TrainState, mesh: Mesh) -> int:
    """Bytes of a step and, on a CPU, of the copy of the state that a background save holds."""
    analysis = compiled.memory_analysis()
    state = sharding.shard_bytes(shapes)
    if analysis is None:
        return state
    used = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )
    return max(int(used), state) + (state if _on_cpu(mesh) else 0)


def _check_memory(needed: int, networks: Networks, mesh: Mesh, fields: Sequence[str] = ()) -> None:
    """Raises ConfigError if a device lacks memory; it says to lower `fields`, among others."""
    available = available_memory(mesh)
    if needed <= available:
        return
    raise ConfigError(
        f"{_largest_field(networks)}: this config needs about {needed / _GIB:.1f} GiB on each "
        f"device and {available / _GIB:.1f} GiB are available; {_advice(networks, fields)}"
    )


def _largest_field(networks: Networks) -> str:
    return "memory.items" if scale_memories(networks.generator) else "model.widths"


def _sizes(batch_shape: BatchShape, mesh: Mesh) -> tuple[str, ...]:
    """Fields that make a step smaller, but not its state."""
    one_each = batch_shape[0] == mesh.size  # a smaller batch would leave devices without images
    return ("data.image_size",) if one_each else ("data.image_size", "train.batch_size")


def _advice(networks: Networks, fields: Sequence[str]) -> str:
    """What to change if a device lacks memory: lower `fields`, among others."""
    memories = list(scale_memories(networks.generator).values())
    lower = [f"memory.items ({memories[0].items})"] if memories else []
    change = f"lower {', '.join([*lower, 'model.widths', *fields])}"
    if memories:
        change += f"; or raise memory.division_rates ({memories[0].rates} at the finest scale)"
    return change


def available_memory(mesh: Mesh) -> int:
    """Bytes that each device of the mesh can still allocate."""
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return memory.available() // len(mesh.local_devices)
