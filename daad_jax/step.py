"""The train step: pure, one forward of the generator for both updates."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from daad_jax import losses
from daad_jax.config import Config
from daad_jax.generator import summarize_batch, summarize_reads
from daad_jax.losses import LossWeights
from daad_jax.state import Networks, NetworkState, TrainState
from daad_jax.watch import Finiteness, finiteness

Metrics = dict[str, jax.Array]

_MEMORY_STREAM = 0x6D656D  # apart from the two keys that flips are drawn with


class StepSpec(NamedTuple):
    """What a step does besides running the networks; fields as in the config.

    Attributes:
        weights: lambda_rec, lambda_adv, lambda_ali.
        unsquared_norm: whether L_rec and L_ali are means of unsquared norms.
        saturating: whether the generator's adversarial loss is the saturating one.
        alignment_updates_discriminator: whether L_ali also trains the discriminator.
        joint_batch_norm: whether D sees real and reconstructed images as one batch.
        flip_horizontal: whether images are mirrored at random.
        flip_vertical: whether images are turned upside down at random.
        average_decay: decay of the running average of the variables; 0 keeps none.
    """

    weights: LossWeights = LossWeights()
    unsquared_norm: bool = False
    saturating: bool = False
    alignment_updates_discriminator: bool = False
    joint_batch_norm: bool = False
    flip_horizontal: bool = False
    flip_vertical: bool = False
    average_decay: float = 0.0


class Gradients(NamedTuple):
    """What a step learns from a batch before it moves anything.

    Attributes:
        generator: gradients of the generator's loss by its parameters.
        discriminator: those of the discriminator's loss by its own, or None.
        metrics: the step's metrics.
        finite: which tensors of the step are finite.
        aux: the next batch statistics of both networks, and the memories' reads.
    """

    generator: Any
    discriminator: Any
    metrics: Metrics
    finite: Finiteness
    aux: dict[str, Any]


def step_spec(config: Config) -> StepSpec:
    """Reads a `StepSpec` off a validated config."""
    loss = config.loss
    return StepSpec(
        weights=LossWeights(loss.rec, loss.adv, loss.ali),
        unsquared_norm=loss.norm == "norm",
        saturating=loss.adversarial == "saturating",
        alignment_updates_discriminator=loss.alignment_updates_discriminator,
        joint_batch_norm=config.discriminator.batch_norm == "joint",
        flip_horizontal=config.data.flip_horizontal,
        flip_vertical=config.data.flip_vertical,
        average_decay=config.train.average_decay,
    )


def train_step(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    spec: StepSpec,
    state: TrainState,
    images: jax.Array,
    key: jax.Array,
) -> tuple[TrainState, Metrics, Finiteness]:
    """One update of both networks from one forward of the generator.

    Both gradients are taken at the same parameters: two pullbacks of one forward, each of which
    keeps only its own network's part.

    Args:
        networks: the modules.
        optimizer: the optimiser of both networks.
        spec: losses and augmentation.
        state: the state; its `step` is folded into the key.
        images: uint8 ``(B, H, W, C)`` in 0 to 255.
        key: the run's random key.

    Returns:
        The next state; scalars: the losses, the gradients' norms, D(x) and D(x_hat), and each
        memory's summary; and which tensors were finite before the update.
    """
    key = jax.random.fold_in(key, state.step)
    images = prepare_images(images, key, spec)
    noise = jax.random.fold_in(key, _MEMORY_STREAM)
    found = gradients(networks, spec, state, images, noise)
    metrics, aux = found.metrics, found.aux
    generator = _update(optimizer, state.generator, found.generator, aux["generator_stats"])
    generator = dataclasses.replace(generator, memory=aux["memory"])
    discriminator = state.discriminator
    if discriminator is not None:
        if spec.weights.adv > 0 or spec.alignment_updates_discriminator:
            discriminator = _update(
                optimizer, discriminator, found.discriminator, aux["discriminator_stats"]
            )
        else:
            discriminator = dataclasses.replace(
                discriminator, batch_stats=aux["discriminator_stats"]
            )
    updated = TrainState(state.step + 1, generator, discriminator, state.average)
    if spec.average_decay > 0:
        updated = dataclasses.replace(updated, average=_average(updated, spec.average_decay))
    return updated, metrics, found.finite


def train_steps(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    spec: StepSpec,
    state: TrainState,
    images: jax.Array,
    key: jax.Array,
    *,
    unroll: bool = False,
) -> tuple[TrainState, Metrics, Finiteness]:
    """Several updates, one after the other, as `train_step` makes them.

    Args:
        networks: as there; so are `optimizer`, `spec`, `state` and `key`.
        optimizer: see above.
        spec: see above.
        state: see above.
        images: uint8 ``(K, B, H, W, C)``, a batch for each update.
        key: see above.
        unroll: whether the updates are compiled one after the other, and not as a loop.

    Returns:
        The state after the last; each metric ``(K,)``; and the flags of finiteness ``(K, n)``.
    """

    def one(state: TrainState, batch: jax.Array) -> tuple[TrainState, tuple[Metrics, Finiteness]]:
        state, metrics, finite = train_step(networks, optimizer, spec, state, batch, key)
        return state, (metrics, finite)

    state, (metrics, finite) = jax.lax.scan(one, state, images, unroll=unroll)
    return state, metrics, finite


def gradients(
    networks: Networks,
    spec: StepSpec,
    state: TrainState,
    images: jax.Array,
    noise: jax.Array | None = None,
) -> Gradients:
    """Both networks' gradients, each by its own loss, from one forward.

    Args:
        networks: the modules.
        spec: the losses.
        state: the state.
        images: ``(B, H, W, C)`` in [-1, 1].
        noise: the key of addressing rules that draw noise; only they need one.

    Returns:
        `Gradients`; its metrics are those of `train_step`.
    """
    outputs, pullback, aux = jax.vjp(
        lambda g, d: _forward(networks, spec, state, images, noise, g, d),
        state.generator.params,
        None if state.discriminator is None else state.discriminator.params,
        has_aux=True,
    )
    cotangent, metrics = jax.grad(_generator_loss, has_aux=True)(outputs, images, spec)
    generator_grads, discriminator_grads = pullback(cotangent)[0], None
    metrics["gradient_norm/generator"] = optax.tree.norm(generator_grads)
    if state.discriminator is not None:
        cotangent, d_metrics = jax.grad(_discriminator_loss, has_aux=True)(outputs, spec)
        _, discriminator_grads = pullback(cotangent)
        metrics |= d_metrics
        metrics["gradient_norm/discriminator"] = optax.tree.norm(discriminator_grads)
    metrics |= summarize_reads(aux["reads"]) | summarize_batch(aux["batch"])
    grads = {"generator": generator_grads, "discriminator": discriminator_grads}
    finite = finiteness(
        ("parameters/generator", state.generator.params),
        *((name, aux[name]) for name in ("features", "assembled")),
        ("parameters/discriminator", state.discriminator and state.discriminator.params),
        ("outputs", outputs),
        ("", {name: value for name, value in metrics.items() if name.startswith("loss/")}),
        ("gradients", grads),
    )
    return Gradients(generator_grads, discriminator_grads, metrics, finite, aux)


def _average(state: TrainState, decay: float) -> tuple[Any, Any]:
    """The next running average; its decay rises over the first steps, so that it starts soon."""
    step = state.step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + step) / (10 + step))
    average: tuple[Any, Any] = optax.incremental_update(state.variables, state.average, 1 - rate)
    return average


def normalize_images(images: jax.Array) -> jax.Array:
    """uint8 in 0 to 255 to float32 in [-1, 1], any shape."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def prepare_images(images: jax.Array, key: jax.Array, spec: StepSpec) -> jax.Array:
    """Normalises uint8 ``(B, H, W, C)`` to [-1, 1] and flips each image at random."""
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
    discriminator_params: Any,
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """Returns what the losses need, and beside it statistics and reads."""
    generated, updated = networks.generator.apply(
        state.generator.variables | {"params": generator_params},
        images,
        train=True,
        mutable=["batch_stats", "memory"],
        rngs={} if noise is None else {"memory": noise},
    )
    outputs = {"reconstruction": generated["reconstruction"]}
    losses_of_rules = [one.loss for one in generated["batch"].values() if one.loss is not None]
    if losses_of_rules:
        outputs["addressing"] = sum(losses_of_rules, jnp.zeros(()))
    aux = {
        "reads": generated["reads"],
        "batch": generated["batch"],
        "memory": updated.get("memory", {}),
        "features": {f"scale_{i + 1}": one for i, one in enumerate(generated["features"])},
        "assembled": {f"scale_{i + 1}": one for i, one in enumerate(generated["assembled"])},
        "generator_stats": updated.get("batch_stats", state.generator.batch_stats),
    }
    if networks.discriminator is not None:
        assert state.discriminator is not None
        judged, stats = _judge(
            networks.discriminator,
            discriminator_params,
            state.discriminator.batch_stats,
            images,
            generated["reconstruction"],
            joint=spec.joint_batch_norm,
        )
        outputs |= judged
        aux["discriminator_stats"] = stats
    return outputs, aux


def _judge(
    discriminator: Any,
    params: Any,
    batch_stats: Any,
    images: jax.Array,
    reconstruction: jax.Array,
    *,
    joint: bool,
) -> tuple[dict[str, jax.Array], Any]:
    def judge(stats: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        (logits, features), updated = discriminator.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        return logits, features, updated.get("batch_stats", stats)

    if joint:
        both = jnp.concatenate([images, reconstruction])
        logits, features, batch_stats = judge(batch_stats, both)
        logits_real, logits_fake = jnp.split(logits, 2)
        features_real, features_fake = jnp.split(features, 2)
    else:
        logits_real, features_real, batch_stats = judge(batch_stats, images)
        logits_fake, features_fake, batch_stats = judge(batch_stats, reconstruction)
    judged = {
        "logits_real": logits_real,
        "logits_fake": logits_fake,
        "features_real": features_real,
        "features_fake": features_fake,
    }
    return judged, batch_stats


def _reduce(squared_error: jax.Array, spec: StepSpec) -> jax.Array:
    return jnp.mean(losses.mean_norm(squared_error) if spec.unsquared_norm else squared_error)


def _generator_loss(
    outputs: dict[str, jax.Array], images: jax.Array, spec: StepSpec
) -> tuple[jax.Array, Metrics]:
    rec = _reduce(losses.reconstruction_error(images, outputs["reconstruction"]), spec)
    adv = ali = jnp.zeros(())
    metrics = {"loss/rec": rec}
    if "logits_fake" in outputs:
        adv = jnp.mean(
            losses.generator_adversarial_error(outputs["logits_fake"], saturating=spec.saturating)
        )
        # The generator is to match f_D(x); whether D moves f_D(x) too is the discriminator's loss.
        ali = _alignment_loss(outputs, spec)
        metrics |= {"loss/adv": adv, "loss/ali": ali}
    loss = losses.total_loss(rec, adv, ali, spec.weights)
    if "addressing" in outputs:
        loss = loss + outputs["addressing"]
        metrics["loss/addressing"] = outputs["addressing"]
    return loss, metrics | {"loss/generator": loss}


def _alignment_loss(outputs: dict[str, jax.Array], spec: StepSpec) -> jax.Array:
    error = losses.alignment_error(outputs["features_real"], outputs["features_fake"])
    return _reduce(error, spec)


def _discriminator_loss(outputs: dict[str, jax.Array], spec: StepSpec) -> tuple[jax.Array, Metrics]:
    real, fake = outputs["logits_real"], outputs["logits_fake"]
    game = jnp.mean(losses.discriminator_error(real, fake))
    loss = spec.weights.adv * game
    if spec.alignment_updates_discriminator:
        loss = loss + spec.weights.ali * _alignment_loss(outputs, spec)
    metrics = {
        "loss/discriminator": game,
        "discriminator/real": jnp.mean(jax.nn.sigmoid(real)),
        "discriminator/fake": jnp.mean(jax.nn.sigmoid(fake)),
    }
    return loss, metrics


def _update(
    optimizer: optax.GradientTransformation,
    network: NetworkState,
    grads: Any,
    batch_stats: Any,
) -> NetworkState:
    updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
    params = optax.apply_updates(network.params, updates)
    return NetworkState(params, batch_stats, opt_state, network.memory)
