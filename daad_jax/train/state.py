"""The training state: every array that a step reads and writes."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from daad_jax.config import Config
from daad_jax.data.dataset import split_valid
from daad_jax.models.build import Networks, image_shape
from daad_jax.runtime import sharding
from daad_jax.workdir.checkpoint import Checkpoints


@flax.struct.dataclass
class NetworkState:
    """The arrays of one network; `memory` is the state of the generator's addressing rules."""

    params: Any
    batch_stats: Any
    opt_state: Any
    memory: Any = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables for the network's `apply`."""
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        return variables | {"memory": self.memory} if self.memory else variables


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes.

    `step` is the number of updates made, an int32 scalar. `average` are the running averages of
    the generator's and the discriminator's variables, or None.
    """

    step: jax.Array
    generator: NetworkState
    discriminator: NetworkState | None
    average: tuple[Any, Any] | None = None

    @property
    def variables(self) -> tuple[Any, Any]:
        """Variables of the generator and of the discriminator (or None) after the last update."""
        discriminator = self.discriminator
        return self.generator.variables, discriminator and discriminator.variables

    @property
    def eval_variables(self) -> tuple[Any, Any]:
        """The variables to score images with: the running averages where there are any."""
        return self.variables if self.average is None else self.average


class AdamSpec(NamedTuple):
    """Adam with the paper's settings, without weight decay; hashable.

    With `split_moments` the moments are split over the devices along the axis "data" of the mesh.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    split_moments: bool = False

    def optimizer(self) -> optax.GradientTransformation:
        """Builds the optimiser; both networks use it, each with its own `opt_state`."""
        return optax.adam(self.learning_rate, b1=self.beta1, b2=self.beta2)


def init_state(
    networks: Networks,
    adam: AdamSpec,
    key: jax.Array,
    images: jax.Array,
    *,
    average: bool = False,
) -> TrainState:
    """Makes the state at step 0. Pure: it can be jitted, sharded and shape-evaluated.

    The memory items are scaled to the queries of the training images ``(B, H, W, C)`` in [-1, 1],
    perhaps with the channel of `daad_jax.data.dataset.split_valid`, which is not used. Running
    means are 0 and running variances 1. With `average` the state holds a running average of the
    variables.
    """
    images, _ = split_valid(images)
    generator_key, discriminator_key = jax.random.split(key)
    generator = _init_network(networks.generator, adam, generator_key, images)
    discriminator = None
    if networks.discriminator is not None:
        discriminator = _init_network(networks.discriminator, adam, discriminator_key, images)
    state = TrainState(jnp.zeros((), jnp.int32), generator, discriminator)
    if not average:
        return state
    return dataclasses.replace(state, average=jax.tree.map(jnp.copy, state.variables))


def _init_network(
    network: nn.Module, adam: AdamSpec, key: jax.Array, images: jax.Array
) -> NetworkState:
    variables = network.init(key, images, train=True)
    params = variables["params"]
    opt_state = adam.optimizer().init(params)
    return NetworkState(
        params, variables.get("batch_stats", {}), opt_state, variables.get("memory", {})
    )


def state_shapes(
    init: Callable[[jax.Array, jax.Array], TrainState],
    shape: tuple[int, ...],
    mesh: Mesh,
    *,
    split_moments: bool = False,
) -> TrainState:
    """Returns the shapes, types and shardings of a state; computes no array.

    `init` makes the state from a random key and images ``(B, H, W, C)`` of any type. `shape` is
    ``(H, W, C)``. The arrays lie on the mesh as `daad_jax.runtime.sharding.tree_shardings` says.
    """
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    shapes = jax.eval_shape(init, jax.eval_shape(jax.random.key, 0), images)
    places = sharding.tree_shardings(shapes, mesh, split_moments=split_moments)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )


def restore_state(folder: Path, config: Config, networks: Networks, mesh: Mesh) -> TrainState:
    """Restores the last sound checkpoint of a run onto a mesh, whatever mesh it was saved from.

    Raises CheckpointError if there is no checkpoint, or none that is sound and fits the config.
    """
    train = config.train
    adam, average = AdamSpec(train.learning_rate), train.average_decay > 0
    init = functools.partial(init_state, networks, adam, average=average)
    split = config.mesh.split_moments
    shapes = state_shapes(init, image_shape(config), mesh, split_moments=split)
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(shapes)


def count_parameters(state: TrainState) -> dict[str, int]:
    """Counts the parameters of a state of arrays or shapes.

    Returns the counts of "generator" (encoder and decoder), "memory" and "discriminator". Items
    that an addressing rule keeps as state count as parameters of the memory.
    """
    params = state.generator.params
    memory = {name: part for name, part in params.items() if name.startswith("memories")}
    kept = jax.tree_util.tree_leaves_with_path(state.generator.memory)
    items = [leaf for path, leaf in kept if jax.tree_util.keystr(path).endswith("['memory_items']")]
    discriminator = state.discriminator and state.discriminator.params
    return {
        "generator": _size(params) - _size(memory),
        "memory": _size(memory) + _size(items),
        "discriminator": _size(discriminator),
    }


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
