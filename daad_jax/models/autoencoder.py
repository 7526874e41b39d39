"""The generator: encoder, memories in chosen connections, and decoder (Section 3.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax.addressing import MemoryRead, perplexity
from daad_jax.models.memory import ITEMS, BatchSummary, BlockMemory


class MapReads(NamedTuple):
    """The result of `Autoencoder.read`.

    Attributes:
        assembled: maps ``(B, H_l, W_l, C_l)``, finest first; a map without a memory is unchanged.
        reads: from the name of each scale with a memory to its `MemoryRead`, with leading axes
            ``(B, Q)``.
        summaries: from the name of each scale with a memory to its `BatchSummary`.
    """

    assembled: tuple[jax.Array, ...]
    reads: dict[str, MemoryRead]
    summaries: dict[str, BatchSummary]


class AutoencoderOutput(NamedTuple):
    """The result of an `Autoencoder`.

    Attributes:
        reconstruction: ``(B, H, W, C)`` in [-1, 1], float32.
        features: the encoder's maps ``(B, H_l, W_l, C_l)``, finest first.
        assembled: the maps that the decoder got, with the shapes of `features`.
        reads: from the name of each scale with a memory to its `MemoryRead`, with leading axes
            ``(B, Q)``.
        summaries: from the name of each scale with a memory to its `BatchSummary`.
    """

    reconstruction: jax.Array
    features: tuple[jax.Array, ...]
    assembled: tuple[jax.Array, ...]
    reads: dict[str, MemoryRead]
    summaries: dict[str, BatchSummary]


class Autoencoder(nn.Module):
    """The encoder-memory-decoder of all six settings.

    Scales are named ``scale_1`` (the finest), ``scale_2``, ...

    Attributes:
        encoder: a `daad_jax.models.backbones.Encoder`.
        decoder: a `daad_jax.models.backbones.Decoder`.
        memories: for each map of the encoder its memory, or None.
    """

    encoder: nn.Module
    decoder: nn.Module
    memories: tuple[BlockMemory | None, ...]

    def __call__(
        self, images: jax.Array, *, train: bool, return_weights: bool = False
    ) -> AutoencoderOutput:
        """Reconstructs images.

        Args:
            images: ``(B, H, W, C)`` in [-1, 1].
            train: whether batch statistics are used, rules draw noise (from the random stream
                "memory") and the memories' state is updated. Apply with
                ``mutable=["batch_stats", "memory"]``.
            return_weights: whether the reads hold their addressing weights.
        """
        features = self.encode(images, train=train)
        assembled, reads, summaries = self.read(
            features, train=train, return_weights=return_weights
        )
        reconstruction = self.decode(assembled, train=train)
        return AutoencoderOutput(reconstruction, features, assembled, reads, summaries)

    def encode(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Encodes images ``(B, H, W, C)`` in [-1, 1] into maps ``(B, H_l, W_l, C_l)``."""
        return tuple(self.encoder(images, train=train))

    def read(
        self, maps: Sequence[jax.Array], *, train: bool, return_weights: bool = False
    ) -> MapReads:
        """Passes maps through the memories.

        Args:
            maps: what `encode` returned.
            train: whether rules draw noise and the memories' state is updated.
            return_weights: whether the reads hold their addressing weights.
        """
        assembled, reads, summaries = [], {}, {}
        for index, (one, memory) in enumerate(zip(maps, self.memories, strict=True)):
            if memory is not None:
                name = _scale_name(index)
                one, reads[name], summaries[name] = memory(one, return_weights, train=train)
            assembled.append(one)
        return MapReads(tuple(assembled), reads, summaries)

    def decode(self, maps: Sequence[jax.Array], *, train: bool) -> jax.Array:
        """Decodes assembled maps ``(B, H_l, W_l, C_l)`` into images ``(B, H, W, C)``."""
        return self.decoder(maps, train=train)


def normalize_images(images: jax.Array) -> jax.Array:
    """Maps uint8 in 0 to 255 to float32 in [-1, 1]; any shape."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def _scale_name(index: int) -> str:
    return f"scale_{index + 1}"


def all_scale_names(generator: Autoencoder) -> list[str]:
    """The names of all scales, finest first, with and without a memory."""
    return [_scale_name(index) for index in range(len(generator.memories))]


def scale_memories(generator: Autoencoder) -> dict[str, BlockMemory]:
    """The memories by the names of their scales, finest first; others are left out."""
    named = zip(all_scale_names(generator), generator.memories, strict=True)
    return {name: memory for name, memory in named if memory is not None}


def memory_items(generator: Autoencoder, variables: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The items of each memory, whether they are learned or part of the rule's state.

    Args:
        generator: the module.
        variables: its collections, "params" and perhaps "memory".

    Returns:
        From the name of each scale with a memory to ``(G, N, D)``, the items of its G banks.
    """
    items = {}
    for index, memory in enumerate(generator.memories):
        if memory is None:
            continue
        name = f"memories_{index}"
        bank = variables["params"].get(name, {}).get(ITEMS)
        if bank is None:
            bank = variables["memory"][name]["state"][ITEMS]
        items[_scale_name(index)] = bank.reshape(-1, *bank.shape[-2:])
    return items


def summarize_reads(reads: Mapping[str, MemoryRead]) -> dict[str, jax.Array]:
    """Summarises the reads of a batch, for each scale.

    Returns:
        Scalars: ``memory/<scale>/active_items``, ``memory/<scale>/largest_weight`` and
        ``memory/<scale>/entropy`` (nats) are means over images and blocks;
        ``memory/<scale>/dead_reads`` counts the reads whose weights are all zero.
    """
    metrics = {}
    for scale, memory_read in reads.items():
        summary = memory_read.summary
        metrics[f"memory/{scale}/active_items"] = jnp.mean(summary.active_items)
        metrics[f"memory/{scale}/largest_weight"] = jnp.mean(summary.largest_weight)
        metrics[f"memory/{scale}/entropy"] = jnp.mean(summary.entropy)
        metrics[f"memory/{scale}/dead_reads"] = jnp.sum(summary.dead)
    return metrics


def summarize_batches(summaries: Mapping[str, BatchSummary]) -> dict[str, jax.Array]:
    """Summarises the use of the items by a batch and the losses of the rule, for each scale.

    Returns:
        Scalars: ``memory/<scale>/unused_items``, the number of items that no read of the batch
        gave a weight; ``memory/<scale>/perplexity`` (see `daad_jax.addressing.perplexity`); and
        ``memory/<scale>/<name>`` for each loss of the rule, unweighted.
    """
    metrics = {}
    for scale, summary in summaries.items():
        unused = summary.usage.reads == 0
        metrics[f"memory/{scale}/unused_items"] = jnp.sum(unused, dtype=jnp.float32)
        metrics[f"memory/{scale}/perplexity"] = perplexity(summary.usage.weight)
        for name, loss in summary.losses.items():
            metrics[f"memory/{scale}/{name}"] = loss
    return metrics
