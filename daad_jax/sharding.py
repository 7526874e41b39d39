"""The data-parallel mesh: the same code on one device and on many."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, "data", over the given devices (default: all of them)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of the state: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of a batch: the axis of its images split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def place_batch(
    shape: tuple[int, ...], rows: Callable[[slice], np.ndarray], mesh: Mesh, axis: int = 0
) -> jax.Array:
    """Makes a global batch of which every process computes its own share only.

    Args:
        shape: the global batch's shape.
        rows: gives the rows that a slice of the split axis names.
        mesh: the data-parallel mesh.
        axis: which axis is split.

    Returns:
        The batch, split over the mesh.
    """

    def share(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return rows(index[axis])

    return jax.make_array_from_callback(shape, batched(mesh, axis), share)


def place_whole(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Places an array, which every process has, on every device of the mesh."""
    return jax.make_array_from_callback(array.shape, replicated(mesh), lambda index: array[index])
