"""The train step: a pure function that updates both networks from one forward pass."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from daad_jax.config import Config
from daad_jax.data.dataset import split_valid
from daad_jax.models.autoencoder import memory_metrics, normalize_images
from daad_jax.models.build import Networks
from daad_jax.models.discriminator import Discriminator
from daad_jax.models.restoration import corrupt
from daad_jax.models.validity import as_weights, keep_others
from daad_jax.train import losses
from daad_jax.train.health import Finiteness, finiteness
from daad_jax.train.losses import LossSpec, StepOutputs
from daad_jax.train.state import AdamSpec, NetworkState, TrainState

Metrics = dict[str, jax.Array]

_MEMORY_STREAM = 0x6D656D  # differs from the two keys that flips are drawn with


class StepSpec(NamedTuple):
    """Everything that defines a step besides the networks; hashable.

    Attributes:
        loss: the losses and their weights.
        adam: the optimiser of both networks.
        joint_batch_norm: whether the discriminator gets real and reconstructed images as one batch.
        flip_horizontal: whether images are mirrored at random.
        flip_vertical: whether images are turned upside down at random.
        corruption: what is done to the generator's input, see `daad_jax.models.restoration`.
        average_decay: decay of the running average of the variables; 0 keeps none.
    """

    loss: LossSpec
    adam: AdamSpec
    joint_batch_norm: bool = False
    flip_horizontal: bool = False
    flip_vertical: bool = False
    corruption: str = "none"
    average_decay: float = 0.0


class StepResult(NamedTuple):
    """The new state, with scalar metrics and finiteness from before the update."""

    state: TrainState
    metrics: Metrics
    finite: Finiteness


class Gradients(NamedTuple):
    """Gradients of each network's loss by its parameters, and results of the forward pass.

    `discriminator` is None if there is no discriminator or it is not trained. `collections` are the
    generator's new collections and the discriminator's new batch statistics.
    """

    generator: Any
    discriminator: Any
    metrics: Metrics
    finite: Finiteness
    collections: tuple[Any, Any]


def step_spec(config: Config) -> StepSpec:
    """Reads the `StepSpec` from a config.

    Raises ConfigError if `loss.extra` names a loss that does not exist or cannot be computed.
    """
    data, train = config.data, config.train
    return StepSpec(
        loss=losses.loss_spec(config),
        adam=AdamSpec(train.learning_rate, train.beta1, train.beta2, config.mesh.split_moments),
        joint_batch_norm=config.discriminator.batch_norm == "joint",
        flip_horizontal=data.flip_horizontal,
        flip_vertical=data.flip_vertical,
        corruption=train.corruption,
        average_decay=train.average_decay,
    )


def make_train_step(
    networks: Networks, spec: StepSpec
) -> Callable[[TrainState, jax.Array, jax.Array], StepResult]:
    """Builds the train step: one update of both networks from one forward pass.

    Both gradients are taken at the same parameters. A discriminator without a loss gets no gradient
    and no update, except of its batch statistics.

    Returns a pure function ``train_step(state, images, key) -> StepResult``. The images are uint8
    ``(B, H, W, C)`` in 0 to 255, perhaps with the channel of `daad_jax.data.dataset.split_valid`:
    pixels that do not count then have no part in the losses. The key is the run's; the step is
    folded into it.
    """

    def train_step(state: TrainState, images: jax.Array, key: jax.Array) -> StepResult:
        key = jax.random.fold_in(key, state.step)
        noise = jax.random.fold_in(key, _MEMORY_STREAM)
        images = prepare_images(images, key, spec)
        grads = gradients(networks, spec, state, images, noise)
        optimizer, (collections, statistics) = spec.adam.optimizer(), grads.collections
        generator = _update(optimizer, state.generator, grads.generator)
        generator = dataclasses.replace(generator, **collections)
        discriminator = state.discriminator
        if discriminator is not None:
            if grads.discriminator is not None:
                discriminator = _update(optimizer, discriminator, grads.discriminator)
            discriminator = dataclasses.replace(discriminator, batch_stats=statistics)
        updated = TrainState(state.step + 1, generator, discriminator, state.average)
        if spec.average_decay > 0:
            updated = dataclasses.replace(updated, average=_average(updated, spec.average_decay))
        return StepResult(updated, grads.metrics, grads.finite)

    return train_step


def gradients(
    networks: Networks,
    spec: StepSpec,
    state: TrainState,
    images: jax.Array,
    noise: jax.Array | None = None,
) -> Gradients:
    """Computes the gradient of each network's loss from one forward pass.

    The images are those of `prepare_images`. `noise` is a random key, which only addressing rules
    with noise and a corruption need.
    """
    discriminator_params = state.discriminator and state.discriminator.params
    trains_discriminator = state.discriminator is not None and spec.loss.trains_discriminator
    trained = (state.generator.params, discriminator_params)[: 1 + trains_discriminator]
    outputs, pullback, (generated, *collections) = jax.vjp(
        lambda *params: _forward(networks, spec, state, images, noise, *params),
        *trained,
        has_aux=True,
    )
    cotangent, metrics = jax.grad(losses.generator_loss, has_aux=True)(outputs, spec.loss)
    grads = {"generator": pullback(cotangent)[0], "discriminator": None}
    if trains_discriminator:
        cotangent, d_metrics = jax.grad(losses.discriminator_loss, has_aux=True)(outputs, spec.loss)
        grads["discriminator"] = pullback(cotangent)[1]
        metrics |= d_metrics
    squares = jax.tree.map(lambda leaf: jnp.sum(jnp.square(leaf)), grads)
    finite = finiteness(
        ("features", _by_scale(generated.features)),
        ("assembled", _by_scale(generated.assembled)),
        ("outputs", outputs),
        ("", {name: value for name, value in metrics.items() if name.startswith("loss/")}),
        ("gradients", squares),  # shared with the norms, so gradients are read once
        parameters={"generator": state.generator.params, "discriminator": discriminator_params},
    )
    for name in (name for name, tree in grads.items() if tree is not None):
        metrics[f"gradient_norm/{name}"] = jnp.sqrt(sum(jax.tree.leaves(squares[name])))
    metrics |= memory_metrics(generated)
    return Gradients(**grads, metrics=metrics, finite=finite, collections=tuple(collections))


def loss_gradients(
    networks: Networks, spec: StepSpec, state: TrainState, images: jax.Array, key: jax.Array
) -> Metrics:
    """Norms of the gradients of the generator's losses by the reconstruction. Pure.

    They tell how hard each loss pulls at the pixels. Takes what a train step takes. Returns
    ``reconstruction_gradient/NAME``, the norm over the batch of the gradient of the weighted loss.
    """
    key = jax.random.fold_in(key, state.step)
    images = prepare_images(images, key, spec)
    noise = jax.random.fold_in(key, _MEMORY_STREAM)
    outputs, _ = _forward(networks, spec, state, images, noise, state.generator.params)

    def weighted(reconstruction: jax.Array) -> Metrics:
        seen = StepOutputs(outputs.images, reconstruction, valid=outputs.valid)
        if networks.discriminator is not None and state.discriminator is not None:
            variables, joint = state.discriminator.variables, spec.joint_batch_norm
            seen, _ = _discriminate(networks.discriminator, variables, seen, joint=joint)
        return {
            one.name: one.weight * one.loss.function(seen, spec.loss) for one in spec.loss.terms
        }

    slopes = jax.jacrev(weighted)(outputs.reconstruction)
    return {f"reconstruction_gradient/{name}": jnp.linalg.norm(one) for name, one in slopes.items()}


def prepare_images(images: jax.Array, key: jax.Array, spec: StepSpec) -> jax.Array:
    """Normalises images and flips each at random, if `spec` says so.

    Maps uint8 ``(B, H, W, C)`` in 0 to 255 to float32 in [-1, 1]. The channel of
    `daad_jax.data.dataset.split_valid` is treated like a colour.
    """
    images = normalize_images(images)
    horizontal_key, vertical_key = jax.random.split(key)
    if spec.flip_horizontal:
        images = _flip(images, horizontal_key, axis=2)
    if spec.flip_vertical:
        images = _flip(images, vertical_key, axis=1)
    return images


def _flip(images: jax.Array, key: jax.Array, axis: int) -> jax.Array:
    chosen = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(chosen, jnp.flip(images, axis), images)


def _forward(
    networks: Networks,
    spec: StepSpec,
    state: TrainState,
    images: jax.Array,
    noise: jax.Array | None,
    generator_params: Any,
    discriminator_params: Any = None,
) -> tuple[StepOutputs, Any]:
    """Runs both networks; `discriminator_params` None uses those of the state, as constants."""
    images, channel = split_valid(images)
    seen = images
    if spec.corruption != "none":
        assert noise is not None
        seen = corrupt(spec.corruption, jax.random.fold_in(noise, 1), images)
    generated, updated = networks.generator.apply(
        state.generator.variables | {"params": generator_params},
        seen,
        train=True,
        mutable=["batch_stats", "memory"],
        rngs={} if noise is None else {"memory": noise},
    )
    summaries = generated.summaries
    rule_losses = [one.loss for one in summaries.values() if one.loss is not None]
    valid = as_weights(channel)
    outputs = StepOutputs(
        images,
        keep_others(generated.reconstruction, images, valid),
        valid=valid,
        addressing=sum(rule_losses, jnp.zeros(())) if rule_losses else None,
    )
    discriminator_stats = None
    if networks.discriminator is not None:
        assert state.discriminator is not None
        variables = state.discriminator.variables
        if discriminator_params is not None:
            variables = variables | {"params": discriminator_params}
        outputs, discriminator_stats = _discriminate(
            networks.discriminator, variables, outputs, joint=spec.joint_batch_norm
        )
    return outputs, (generated, updated, discriminator_stats)


def _by_scale(maps: tuple[jax.Array, ...]) -> dict[str, jax.Array]:
    return {f"scale_{index + 1}": one for index, one in enumerate(maps)}


def _discriminate(
    discriminator: Discriminator, variables: dict[str, Any], outputs: StepOutputs, *, joint: bool
) -> tuple[StepOutputs, Any]:
    """Adds the discriminator's logits and features; returns its new batch statistics too."""

    def apply(stats: Any, images: jax.Array) -> tuple[Any, Any]:
        output, updated = discriminator.apply(
            variables | {"batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        return output, updated.get("batch_stats", stats)

    stats, images, reconstruction = variables["batch_stats"], outputs.images, outputs.reconstruction
    if joint:
        both, stats = apply(stats, jnp.concatenate([images, reconstruction]))
        real, fake = zip(*(jnp.split(one, 2) for one in both), strict=True)
    else:
        real, stats = apply(stats, images)
        fake, stats = apply(stats, reconstruction)
    logits = {"logits_real": real[0], "logits_fake": fake[0]}
    return outputs._replace(**logits, features_real=real[1], features_fake=fake[1]), stats


def _update(
    optimizer: optax.GradientTransformation, network: NetworkState, grads: Any
) -> NetworkState:
    updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
    params = optax.apply_updates(network.params, updates)
    return dataclasses.replace(network, params=params, opt_state=opt_state)


def _average(state: TrainState, decay: float) -> tuple[Any, Any]:
    """The next running average; its decay starts low, so that it adapts fast in early steps."""
    step = state.step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + step) / (10 + step))
    average: tuple[Any, Any] = optax.incremental_update(state.variables, state.average, 1 - rate)
    return average
