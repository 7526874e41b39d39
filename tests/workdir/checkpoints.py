"""Small checkpoints to save, restore and damage."""

import os
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from daad_jax.workdir.checkpoint import Checkpoints


@flax.struct.dataclass
class State:
    """A train state with one parameter."""

    step: jax.Array
    params: Any


def state(step, shape=(50, 40)):
    """A state whose parameter cannot be compressed."""
    return State(jnp.int32(step), {"w": jax.random.normal(jax.random.key(step), shape)})


def shapes(shape=(50, 40)):
    """The shapes and shardings to restore a state with."""
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), state(0, shape)
    )


def save(workdir, *steps, keep=2):
    """Saves a state for each step."""
    with Checkpoints(workdir, keep) as checkpoints:
        for step in steps:
            checkpoints.save(state(step))


def restore(workdir, keep=None, **kwargs):
    """Restores, checks the arrays and returns the step."""
    with Checkpoints(workdir, keep) as checkpoints:
        restored = checkpoints.restore(shapes(**kwargs))
    step = int(restored.step)
    np.testing.assert_array_equal(restored.params["w"], state(step).params["w"])
    return step


def largest_file(folder):
    """The largest file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def remove(path):
    """Deletes a file."""
    path.unlink()


def truncate(path):
    """Removes the last byte of a file."""
    path.write_bytes(path.read_bytes()[:-1])


def flip_bit(path):
    """Changes one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link_outside(path):
    """Replaces a file by a link to a device that can be read forever."""
    path.unlink()
    path.symlink_to("/dev/zero")


def make_pipe(path):
    """Replaces a file by a pipe, which blocks its reader."""
    path.unlink()
    os.mkfifo(path)


DAMAGE = [
    (remove, "is missing"),
    (truncate, "bytes instead of"),
    (flip_bit, "was changed after it was saved"),
    (link_outside, "points outside the checkpoint"),
    (make_pipe, "is not a regular file"),
]


def line_of(capsys):
    """The only line on stderr."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error
