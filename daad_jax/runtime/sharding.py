"""The mesh of devices, and which axis of each array is split over which axis of the mesh.

The mesh has two axes. Images, and everything that is computed from them, are split over all
devices. The devices along "items" share each memory bank: the items ``(N, D)`` are split along N
or, where N is not a multiple of the devices, along D. All else is whole on every device. The same
code runs on one device and on many: the compiler puts in the communication.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from daad_jax.config import MeshConfig
from daad_jax.errors import ConfigError

DATA_AXIS, ITEMS_AXIS = "data", "items"

# The mesh axes over which an axis of an array is split, by the name of the array's axis.
_MESH_AXES = {
    "batch": (DATA_AXIS, ITEMS_AXIS),
    "reads": DATA_AXIS,  # the batch while its blocks read a bank that devices share
    "items": ITEMS_AXIS,
    "values": ITEMS_AXIS,
    None: None,
}
# Arrays of a memory that have the axes of a bank as their last ones, by name.
_BANK_ARRAYS = {"memory_items": 2, "total": 2, "count": 1}
_MEMORY, _MOMENTS = "memories_", "opt_state"  # in the paths of arrays


def make_mesh(
    devices: Sequence[jax.Device] | None = None, fields: MeshConfig | None = None
) -> Mesh:
    """Makes the mesh of the given devices (default: all devices).

    `fields` say how many devices share a bank; without them every device holds whole banks. Raises
    ConfigError if they do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    items = 1 if fields is None else fields.items
    data = len(devices) // items if fields is None or fields.data == 0 else fields.data
    if data * items != len(devices):
        raise ConfigError(
            f"mesh.items: {len(devices)} device(s) are not {data or 1} x {items}; mesh.data times "
            "mesh.items must be the number of devices, and mesh.data=0 fits itself"
        )
    return jax.make_mesh(
        (data, items), (DATA_AXIS, ITEMS_AXIS), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis is split over all devices."""
    return NamedSharding(mesh, _spec("batch"))


def tree_shardings(tree: Any, mesh: Mesh, *, split_moments: bool = False) -> Any:
    """The sharding of each array of a state or of a network's variables.

    The arrays of a bank are split along the axis "items" of the mesh, and Adam's moments follow
    their parameters. With `split_moments` the moments are also split along "data", on their longest
    axis that allows it. The tree may hold arrays or shapes.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = _array_axes(name, leaf.shape, mesh)
        if split_moments and _MOMENTS in name:
            data = mesh.shape[DATA_AXIS]
            free = [
                size if not axes[i] and size % data == 0 else 0 for i, size in enumerate(leaf.shape)
            ]
            if any(free):
                axes[free.index(max(free))] = DATA_AXIS
        return NamedSharding(mesh, PartitionSpec(*axes) if any(axes) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _array_axes(path: str, shape: tuple[int, ...], mesh: Mesh) -> list[Any]:
    """The mesh axes of an array of a state: those of a bank for the arrays of one."""
    axes: list[Any] = [None] * len(shape)
    last = _BANK_ARRAYS.get(path.rsplit("/", 1)[-1], 0) if _MEMORY in path else 0
    if last and len(shape) >= last:
        bank = bank_axes(*shape[-last:], parts=mesh.shape[ITEMS_AXIS])
        axes[-last:] = [_MESH_AXES[name] for name in bank[:last]]
    return axes


def bank_axes(
    items: int, size: int = 1, *, parts: int | None = None
) -> tuple[str | None, str | None]:
    """The names of the axes of a bank ``(N, D)`` that `parts` devices share.

    They are ``("items", None)`` if N is a multiple of the devices, ``(None, "values")`` if only D
    is, and ``(None, None)`` if neither is or there is one device. `parts` is by default that of the
    mesh that the code is traced for.
    """
    parts = _traced_parts() if parts is None else parts
    if parts == 1:
        return None, None
    if items % parts == 0:
        return "items", None
    return None, "values" if size % parts == 0 else None


def check_banks(shapes: Any, mesh: Mesh) -> None:
    """Raises ConfigError if the mesh cannot split a bank of a state of shapes."""
    parts = mesh.shape[ITEMS_AXIS]
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("memory_items") and parts > 1:
            items, size = leaf.shape[-2:]
            if bank_axes(items, size, parts=parts) == (None, None):
                raise ConfigError(
                    f"mesh.items: {parts} devices cannot share {items} items of {size} values; "
                    "make mesh.items a divisor of memory.items"
                )


def on_several_devices() -> bool:
    """Whether the code is traced for a mesh of several devices, see `on_mesh`."""
    return int(jax.sharding.get_abstract_mesh().size) > 1


def _traced_parts() -> int:
    return int(jax.sharding.get_abstract_mesh().shape.get(ITEMS_AXIS, 1))


def constrain(array: jax.Array, *axes: str | None) -> jax.Array:
    """Splits an array along its named axes; where no devices share a bank, it changes nothing.

    There is a name, "batch", "reads", "items" or "values", or None for each axis.
    """
    if _traced_parts() == 1:
        return array
    return jax.lax.with_sharding_constraint(array, _spec(*axes))


def _spec(*axes: str | None) -> PartitionSpec:
    return PartitionSpec(*(_MESH_AXES[name] for name in axes))


def on_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """A function, to be jitted, whose code knows the mesh that it is traced for."""
    if mesh.size == 1:
        return function

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def shard_bytes(shapes: Any) -> int:
    """Bytes that one device holds of a tree of shapes with shardings."""
    leaves = jax.tree.leaves(shapes)
    return sum(
        math.prod(one.sharding.shard_shape(one.shape)) * one.dtype.itemsize for one in leaves
    )


def place_batch(
    shape: tuple[int, ...], rows: Callable[[slice], np.ndarray], mesh: Mesh
) -> jax.Array:
    """Builds a batch of a given shape, split over the mesh along its first axis.

    `rows` returns the part that a slice of that axis selects. Each process calls it only for its
    own parts.
    """

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return rows(index[0])

    return jax.make_array_from_callback(shape, batched(mesh), part)


def place_whole(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Copies an array, which every process holds, to every device of the mesh."""
    return jax.make_array_from_callback(array.shape, replicated(mesh), lambda index: array[index])


def place_tree(tree: Any, mesh: Mesh) -> Any:
    """Places the arrays of a pytree, of the host or of devices, as `tree_shardings` says."""
    shapes = jax.eval_shape(lambda leaves: leaves, tree)
    return jax.device_put(tree, tree_shardings(shapes, mesh))
