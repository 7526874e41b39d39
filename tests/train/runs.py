"""Helpers that train tiny models."""

import contextlib
import json

import jax
import numpy as np

from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.train import loop
from daad_jax.train.input_pipeline import open_source
from daad_jax.train.metrics_log import METRICS_FILE
from daad_jax.train.program import build_program
from daad_jax.train.step import step_spec
from daad_jax.workdir.run import open_run


def quiet(_):
    """Drops a message."""


def fit(config, dataset, folder=None, *, mesh=None, stop_at=None):
    """Trains a config on a dataset, in a folder or without one."""
    mesh = mesh or sharding.make_mesh()
    images = dataset.train.images
    with contextlib.ExitStack() as stack:
        run = None if folder is None else stack.enter_context(open_run(folder, config, images))
        return loop.train(
            config,
            build_networks(config, devices=mesh.size),
            images,
            run=run,
            mesh=mesh,
            stop_at=stop_at,
            log=quiet,
        )


def program_of(config, mesh):
    """The compiled program of a config on a mesh."""
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, config.data.channels)
    return build_program(build_networks(config, devices=mesh.size), step_spec(config), shape, mesh)


def first_batch_and_state(config, dataset, program):
    """The batch of the first update and the state at step 0."""
    images = dataset.train.images
    order = loop.make_plan(config, len(images)).order
    batch = open_source("no", images, order, program).read(0)
    return batch, loop.first_state(program, config.seed, batch)


def metrics_of(folder):
    """The lines of a run's metrics file."""
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def assert_bitwise_equal(a, b):
    """Compares two trees of arrays."""
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((a, b)))
