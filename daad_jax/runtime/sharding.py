"""The data-parallel mesh. The same code runs on one device and on many."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, "data", over the given devices (default: all devices)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the train state: a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


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
    """Copies every array of a pytree, which every process holds, to every device of the mesh."""
    return jax.tree.map(lambda leaf: place_whole(np.asarray(leaf), mesh), tree)
