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


def batched(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def place_batch(
    shape: tuple[int, ...], rows: Callable[[slice], np.ndarray], mesh: Mesh
) -> jax.Array:
    """Makes a global batch of which every process computes its own share only.

    Args:
        shape: the global batch's shape.
        rows: gives the rows that a slice of the first axis names.
        mesh: the data-parallel mesh.

    Returns:
        The batch, split over the mesh.
    """

    def share(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return rows(index[0])

    return jax.make_array_from_callback(shape, batched(mesh), share)
