"""The generator: encoder, memories in some of its connections, and decoder (Section 3.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from daad_jax.addressing import MemoryRead, perplexity
from daad_jax.models.memory import ITEMS, BatchSummary, BlockMemory


class AutoencoderOutput(NamedTuple):
    """The result of an `Autoencoder`.

    The reconstruction is float32 ``(B, H, W, C)`` in [-1, 1]. `features` are the encoder's maps
    ``(B, H_l, W_l, C_l)``, finest first. `assembled` are the maps that the decoder gets, with the
    same shapes. `reads` and `summaries` have one entry for each scale with a memory, by its name;
    the arrays of the reads have leading axes ``(B, Q)``.
    """

    reconstruction: jax.Array
    features: tuple[jax.Array, ...]
    assembled: tuple[jax.Array, ...]
    reads: dict[str, MemoryRead]
    summaries: dict[str, BatchSummary]


class Autoencoder(nn.Module):
    """The encoder-memory-decoder of all six settings.

    Scales are named ``scale_1`` (the finest), ``scale_2``, ... `memories` holds the memory of each
    map of the encoder, or None.
    """

    encoder: nn.Module
    decoder: nn.Module
    memories: tuple[BlockMemory | None, ...]

    def __call__(
        self, images: jax.Array, *, train: bool, return_weights: bool = False
    ) -> AutoencoderOutput:
        """Reconstructs images ``(B, H, W, C)`` in [-1, 1].

        With `train`, batch normalisation uses batch statistics, rules draw noise from the random
        stream "memory", and the memories' state is updated. Apply it then with
        ``mutable=["batch_stats", "memory"]``. `return_weights` adds the addressing weights to the
        reads.
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
    ) -> tuple[tuple[jax.Array, ...], dict[str, MemoryRead], dict[str, BatchSummary]]:
        """Passes the maps of `encode` through the memories.

        Returns the assembled maps, the reads and the summaries, as in `AutoencoderOutput`. A map
        without a memory is unchanged. With `train`, rules draw noise and the memories' state is
        updated. `return_weights` adds the addressing weights to the reads.
        """
        assembled, reads, summaries = [], {}, {}
        for index, (one, memory) in enumerate(zip(maps, self.memories, strict=True)):
            if memory is not None:
                name = _scale_name(index)
                one, reads[name], summaries[name] = memory(one, return_weights, train=train)
            assembled.append(one)
        return tuple(assembled), reads, summaries

    def decode(self, maps: Sequence[jax.Array], *, train: bool) -> jax.Array:
        """Decodes assembled maps ``(B, H_l, W_l, C_l)`` into images ``(B, H, W, C)``."""
        return self.decoder(maps, train=train)


def normalize_images(images: jax.Array) -> jax.Array:
    """Maps uint8 images of any shape, 0 to 255, to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def _scale_name(index: int) -> str:
    return f"scale_{index + 1}"


def all_scale_names(generator: Autoencoder) -> list[str]:
    """The names of all scales, finest first, with and without a memory."""
    return [_scale_name(index) for index in range(len(generator.memories))]


def scale_memories(generator: Autoencoder) -> dict[str, BlockMemory]:
    """The memories by the name of their scale, finest first; scales without one are left out."""
    named = zip(all_scale_names(generator), generator.memories, strict=True)
    return {name: memory for name, memory in named if memory is not None}


def memory_items(generator: Autoencoder, variables: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The items of each memory, whether they are learned or part of the rule's state.

    `variables` has the generator's collections "params" and, for rules with a state, "memory".
    Returns ``(G, N, D)``, the items of G banks, by the name of each scale with a memory.
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


def memory_metrics(output: AutoencoderOutput) -> dict[str, jax.Array]:
    """Summarises the reads of a batch: scalars ``memory/<scale>/<name>``.

    ``active_items``, ``largest_weight`` and ``entropy`` (in nats) are means over images and blocks.
    ``dead_reads`` counts the reads whose weights are all zero, and ``unused_items`` the items that
    no read gave a weight. ``perplexity`` is that of `daad_jax.addressing.perplexity`. Each loss of
    the rule is added without its weight.
    """
    metrics: dict[str, jax.Array] = {}
    for scale, batch in output.summaries.items():
        reads, usage = output.reads[scale].summary, batch.usage
        values = {
            "active_items": jnp.mean(reads.active_items),
            "largest_weight": jnp.mean(reads.largest_weight),
            "entropy": jnp.mean(reads.entropy),
            "dead_reads": jnp.sum(reads.dead),
            "unused_items": jnp.sum(usage.reads == 0, dtype=jnp.float32),
            "perplexity": perplexity(usage.weight),
        }
        metrics |= {f"memory/{scale}/{name}": v for name, v in (values | batch.losses).items()}
    return metrics
