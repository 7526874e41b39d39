"""The generator: one encoder, memories in chosen connections, one decoder (Section 3.1)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax import layers
from daad_jax.addressing import Rule, Weigh, threshold
from daad_jax.memory import BatchSummary, BlockMemory, MemoryRead, perplexity
from daad_jax.partition import Rates


class MemorySpec(NamedTuple):
    """A memory in one connection; fields as in `daad_jax.memory.BlockMemory`."""

    items: int
    rates: Rates
    rule: Rule | Weigh = threshold
    temperature: float = 1.0
    init_scale: float = 1.0
    similarity: str = "cosine"
    learned_temperature: bool = False
    groups: Rates = (1, 1, 1)
    frozen: bool = False


def scale_sizes(height: int, width: int, widths: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """``(H, W, C)`` of the encoder's feature maps for an image size, finest scale first."""
    return tuple(
        (height >> (index + 1), width >> (index + 1), channels)
        for index, channels in enumerate(widths)
    )


class Generator(nn.Module):
    """The encoder-memory-decoder that all six settings share.

    Attributes:
        widths: channels of the encoder's stride-2 stages, finest first; the decoder mirrors them.
        channels: channels of the image.
        memories: for each stage, the memory in its connection or None.
        skips: whether the decoder sees the stages before the bottleneck.
        skip_join: ``"concat"`` or ``"sum"``, how it sees them.
        query_from: ``"after"`` or ``"before"`` the stage's activation. Assembled maps that were
            read before it pass through it on their way to the decoder.
        batch_norm_momentum: weight of the old running statistics.
        dtype: what convolutions compute in; the memories read in float32.
    """

    widths: tuple[int, ...]
    channels: int
    memories: tuple[MemorySpec | None, ...]
    skips: bool = True
    skip_join: str = "concat"
    query_from: str = "after"
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        return_weights: bool = False,
        update: bool | None = None,
        edit: Callable[[list[jax.Array]], list[jax.Array]] | None = None,
    ) -> dict[str, Any]:
        """Reconstructs images.

        Args:
            images: ``(B, H, W, channels)`` in [-1, 1]; ``2 ** len(widths)`` divides H and W.
            train: batch statistics when true (apply with ``mutable=["batch_stats"]``), running
                statistics when false.
            return_weights: whether the reads hold their addressing weights.
            update: whether the memories' state moves on (apply with ``mutable=["memory"]``); by
                default in training.
            edit: changes the assembled maps before they are decoded.

        Returns:
            ``reconstruction`` (B, H, W, channels) in [-1, 1]; ``features`` and ``assembled``,
            lists of (B, H_l, W_l, C_l), finest scale first, where `assembled` is what the decoder
            may see; ``reads``, from the scale's name (``scale_1`` is the finest) to its
            `daad_jax.memory.MemoryRead` with leading axes (B, Q); ``batch``, likewise to its
            `daad_jax.memory.BatchSummary`.
        """
        update = train if update is None else update
        features = self._encode(images, train)
        assembled, reads, batch = [], {}, {}
        for index, (feature_map, spec) in enumerate(zip(features, self.memories, strict=True)):
            if spec is not None:
                memory = BlockMemory(*spec, name=f"memory_{index + 1}")
                name = f"scale_{index + 1}"
                feature_map, reads[name], batch[name] = memory(
                    feature_map, return_weights, train=train, update=update
                )
            if self.query_from == "before":
                feature_map = layers.leaky_relu(feature_map)
            assembled.append(feature_map)
        if edit is not None:
            assembled = edit(assembled)
        return {
            "features": features,
            "assembled": assembled,
            "reads": reads,
            "batch": batch,
            "reconstruction": self._decode(assembled, train),
        }

    def _encode(self, images: jax.Array, train: bool) -> list[jax.Array]:
        x, features = images, []
        for index, width in enumerate(self.widths):
            first = index == 0
            name = f"encoder_{index + 1}"
            x = layers.DownConv(width, use_bias=first, dtype=self.dtype, name=name)(x)
            if not first:
                x = self._batch_norm(train, f"encoder_norm_{index + 1}")(x)
            before, x = x, layers.leaky_relu(x)
            features.append(before if self.query_from == "before" else x)
        return features

    def _decode(self, assembled: list[jax.Array], train: bool) -> jax.Array:
        x = assembled[-1]
        for index in range(len(self.widths) - 2, -1, -1):
            up = self._up_conv(self.widths[index], False, f"decoder_{index + 2}")
            x = jax.nn.relu(self._batch_norm(train, f"decoder_norm_{index + 2}")(up(x)))
            if self.skips:
                skip = assembled[index]
                x = x + skip if self.skip_join == "sum" else jnp.concatenate([x, skip], axis=-1)
        x = self._up_conv(self.channels, True, "decoder_1")(x)
        return jnp.tanh(layers.at_least_float32(x))

    def _up_conv(self, features: int, use_bias: bool, name: str) -> layers.UpConv:
        return layers.UpConv(features, use_bias=use_bias, dtype=self.dtype, name=name)

    def _batch_norm(self, train: bool, name: str) -> nn.BatchNorm:
        return layers.batch_norm(
            train=train, momentum=self.batch_norm_momentum, name=name, dtype=self.dtype
        )


def summarize_reads(reads: dict[str, MemoryRead]) -> dict[str, jax.Array]:
    """Means over images and blocks of each scale's summary, and the number of dead reads.

    Returns:
        Scalars named ``memory/<scale>/active_items``, ``largest_weight``, ``entropy`` (nats) and
        ``dead_reads`` (a count).
    """
    metrics = {}
    for scale, memory_read in reads.items():
        summary = memory_read.summary
        metrics[f"memory/{scale}/active_items"] = jnp.mean(summary.active_items)
        metrics[f"memory/{scale}/largest_weight"] = jnp.mean(summary.largest_weight)
        metrics[f"memory/{scale}/entropy"] = jnp.mean(summary.entropy)
        metrics[f"memory/{scale}/dead_reads"] = jnp.sum(summary.dead)
    return metrics


def summarize_batch(batch: dict[str, BatchSummary]) -> dict[str, jax.Array]:
    """What each scale's items were to a batch, and its rule's losses.

    Returns:
        Scalars named ``memory/<scale>/unused_items`` (items that no read of the batch took),
        ``perplexity`` (see `daad_jax.memory.perplexity`) and the losses' own names, unweighted.
    """
    metrics = {}
    for scale, summary in batch.items():
        unused = summary.usage.reads == 0
        metrics[f"memory/{scale}/unused_items"] = jnp.sum(unused, dtype=jnp.float32)
        metrics[f"memory/{scale}/perplexity"] = perplexity(summary.usage.weight)
        for name, loss in summary.losses.items():
            metrics[f"memory/{scale}/{name}"] = loss
    return metrics
