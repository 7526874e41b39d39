"""Builds the networks of a config and checks everything that depends on their shapes."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from daad_jax.addressing import Rule, get_similarity, parse_rule
from daad_jax.config import Config
from daad_jax.errors import ConfigError
from daad_jax.models.autoencoder import Autoencoder
from daad_jax.models.backbones import build_backbone
from daad_jax.models.blocks import resolve_groups, resolve_rates
from daad_jax.models.discriminator import Discriminator, stage_count
from daad_jax.models.memory import BlockMemory

Shape = tuple[int, int, int]


class Networks(NamedTuple):
    """The modules of a run: hashable, without arrays.

    The discriminator is None if neither the adversarial nor the alignment loss has a weight.
    """

    generator: Autoencoder
    discriminator: Discriminator | None


def image_shape(config: Config) -> Shape:
    """``(H, W, C)`` of the images that the networks take: whole images, or their tiles."""
    return (*config.data.network_size, config.data.channels)


def build_networks(config: Config, rule: Rule | None = None, *, devices: int = 1) -> Networks:
    """Builds the networks of a config.

    Without a `rule`, `memory.addressing` is parsed, and rules outside the package are refused.
    `devices` is the number of devices that share a batch, because `memory.chunk_mib` is per device.
    Raises ConfigError, which names the first field that does not fit the shapes of the networks.
    """
    encoder, decoder = build_backbone(config)
    shape = image_shape(config)
    shapes = tuple(one.shape[1:] for one in _output_shapes(encoder, shape))
    generator = Autoencoder(encoder, decoder, _build_memories(config, rule, shapes, devices))
    made = _output_shapes(generator, shape).reconstruction.shape[1:]
    if made != shape:
        raise ConfigError(
            f"model.backbone: {config.model.backbone} makes images {made} of images {shape}; its "
            "decoder must return the encoder's input shape"
        )
    if not config.has_discriminator:
        return Networks(generator, None)
    return Networks(generator, build_discriminator(config))


def _build_memories(
    config: Config, rule: Rule | None, shapes: tuple[Shape, ...], devices: int
) -> tuple[BlockMemory | None, ...]:
    memory = config.memory
    rule = parse_rule(memory.addressing) if rule is None else rule
    build = functools.partial(
        BlockMemory,
        items=memory.items,
        rule=rule,
        similarity=get_similarity(memory.similarity),
        temperature=memory.temperature,
        init_scale=memory.init_scale,
        learned_temperature=memory.learned_temperature,
        frozen=memory.frozen,
        chunk_bytes=memory.chunk_mib * 2**20 * devices,
    )
    memories: list[BlockMemory | None] = []
    first = {"all": 0, "bottleneck": len(shapes) - 1, "none": len(shapes)}[memory.scales]
    carries_memory = [index >= first for index in range(len(shapes))]
    scale_rates = resolve_rates(memory.division_rates, shapes, carries_memory)
    for index, rates in enumerate(scale_rates):
        if rates is None:
            memories.append(None)
            continue
        groups = resolve_groups(memory.banks, rates, index)
        size = math.prod(shapes[index]) // math.prod(rates)
        rule.check(memory.items, size, frozen=memory.frozen)
        memories.append(build(rates=rates, groups=groups))
    return tuple(memories)


def build_discriminator(config: Config) -> Discriminator:
    """Builds the discriminator alone, also for a config whose losses need none.

    Raises ConfigError if `discriminator.feature_layer` names no stage.
    """
    model, fields = config.model, config.discriminator
    height, width, _ = image_shape(config)
    stages = stage_count(height, width)
    if not -stages <= fields.feature_layer < stages:
        raise ConfigError(
            f"discriminator.feature_layer: {fields.feature_layer} is not one of the {stages} "
            f"stages that the discriminator has at {min(height, width)} px; choose from {-stages} "
            f"to {stages - 1}"
        )
    return Discriminator(
        width=fields.width,
        max_width=fields.max_width,
        feature_layer=fields.feature_layer,
        batch_norm_momentum=model.batch_norm_momentum,
        dtype=jnp.dtype(model.compute_dtype),
    )


@functools.lru_cache(maxsize=64)
def _output_shapes(module: Any, shape: Shape) -> Any:
    """The shapes of a module's output for one image, by tracing it; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    initialize = functools.partial(module.init_with_output, train=False)
    return jax.eval_shape(initialize, jax.random.key(0), image)[0]
