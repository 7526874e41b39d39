"""The networks of a config, and the state that training moves: all of it, and nothing else."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from daad_jax import config as config_lib
from daad_jax.config import Config
from daad_jax.discriminator import Discriminator
from daad_jax.generator import Generator


class Networks(NamedTuple):
    """The modules of a run; `discriminator` is None without adversarial and alignment losses."""

    generator: Generator
    discriminator: Discriminator | None


@flax.struct.dataclass
class NetworkState:
    """One network's arrays.

    Attributes:
        params: learned by the optimiser; the generator's hold the memory items.
        batch_stats: running statistics of batch normalisation.
        opt_state: Adam's moments and count.
        memory: of the generator, what addressing rules carry on without gradient; floats.
    """

    params: Any
    batch_stats: Any
    opt_state: Any
    memory: Any = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """What the network's `apply` takes."""
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        return variables | {"memory": self.memory} if self.memory else variables


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes.

    Attributes:
        step: int32 scalar, the number of updates made.
        generator: the generator's arrays.
        discriminator: the discriminator's, or None.
        average: running averages of the generator's and the discriminator's variables, or None.
    """

    step: jax.Array
    generator: NetworkState
    discriminator: NetworkState | None
    average: tuple[Any, Any] | None = None

    @property
    def variables(self) -> tuple[Any, Any]:
        """The variables of the generator and of the discriminator, or None, as last updated."""
        critic = self.discriminator
        return self.generator.variables, None if critic is None else critic.variables

    @property
    def evaluated(self) -> tuple[Any, Any]:
        """The `variables` that images are scored with: the averages where there are any."""
        return self.variables if self.average is None else self.average

    def with_memory(self, memory: Any) -> "TrainState":
        """The state with other `NetworkState.memory`, also where averages are evaluated."""
        generator = dataclasses.replace(self.generator, memory=memory)
        average = self.average
        if average is not None:
            average = ({**average[0], "memory": memory}, average[1])
        return dataclasses.replace(self, generator=generator, average=average)


def build_networks(config: Config) -> Networks:
    """Builds the modules that a validated config describes."""
    model, critic = config.model, config.discriminator
    generator = Generator(
        widths=tuple(model.widths),
        channels=config.data.channels,
        memories=config_lib.memory_specs(config),
        skips=model.skips,
        skip_join=model.skip_join,
        query_from=model.query_from,
        batch_norm_momentum=model.batch_norm_momentum,
        dtype=jnp.dtype(model.compute_dtype),
    )
    if not config.has_discriminator:
        return Networks(generator, None)
    discriminator = Discriminator(
        width=critic.width,
        max_width=critic.max_width,
        feature_layer=critic.feature_layer,
        batch_norm_momentum=model.batch_norm_momentum,
        dtype=jnp.dtype(model.compute_dtype),
    )
    return Networks(generator, discriminator)


def build_optimizer(config: Config) -> optax.GradientTransformation:
    """Adam as the paper sets it, without weight decay; both networks use their own instance."""
    train = config.train
    return optax.adam(train.learning_rate, b1=train.beta1, b2=train.beta2)


def init_state(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    images: jax.Array,
    *,
    average: bool = False,
) -> TrainState:
    """Makes the state at step 0; pure, so that it can be jitted, sharded and shape-evaluated.

    Args:
        networks: the modules.
        optimizer: the optimiser of both networks.
        key: a random key.
        images: ``(B, H, W, C)`` in [-1, 1], real training images: the memory items' scale is
            taken from the queries that they make.
        average: whether a running average of the variables is kept.

    Returns:
        The state, with batch statistics at their initial 0 and 1.
    """
    generator_key, discriminator_key = jax.random.split(key)
    generator = _init_network(networks.generator, optimizer, generator_key, images)
    discriminator = None
    if networks.discriminator is not None:
        discriminator = _init_network(networks.discriminator, optimizer, discriminator_key, images)
    state = TrainState(jnp.zeros((), jnp.int32), generator, discriminator)
    if not average:
        return state
    return dataclasses.replace(state, average=jax.tree.map(jnp.copy, state.variables))


def _init_network(
    network: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array, images: jax.Array
) -> NetworkState:
    variables = network.init(key, images, train=True)
    params = variables["params"]
    memory = variables.get("memory", {})
    return NetworkState(params, variables.get("batch_stats", {}), optimizer.init(params), memory)


def count_parameters(state: TrainState) -> dict[str, int]:
    """Counts parameters (arrays or shapes): the generator's without memory, memory, discriminator.

    Items that are state count as the memory's.

    Returns:
        ``{"generator": ..., "memory": ..., "discriminator": ...}``.
    """
    memory = rest = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.generator.params):
        if jax.tree_util.keystr(path, simple=True).startswith("memory_"):
            memory += leaf.size
        else:
            rest += leaf.size
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.generator.memory):
        if jax.tree_util.keystr(path).endswith("['memory_items']"):
            memory += leaf.size
    critic = () if state.discriminator is None else jax.tree.leaves(state.discriminator.params)
    return {
        "generator": rest,
        "memory": memory,
        "discriminator": sum(leaf.size for leaf in critic),
    }
