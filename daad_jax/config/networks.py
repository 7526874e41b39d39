"""The part of the config that describes the networks: generator, memories and discriminator."""

# The field types are read at run time, so annotations must not be postponed.

from dataclasses import dataclass
from typing import Literal

from daad_jax.config.checks import BELOW_ONE, above, at_least, each, one_of
from daad_jax.config.section import Section, option

Rates = tuple[int, int, int]
DivisionRates = Literal["pixel"] | Rates | tuple[Literal["pixel"] | Rates, ...]

_MAX_STAGES = 13  # each halves the image: 2**13 = 8192


@dataclass
class ModelConfig(Section):
    """The generator: encoder and decoder."""

    backbone: str = option(
        "dcgan", "encoder and decoder: name of a module in `daad_jax/models/backbones`"
    )
    widths: tuple[int, ...] = option(
        (64, 128, 256, 512),
        "channels of the encoder's stages, finest first; the decoder mirrors them",
        each(at_least(1), _MAX_STAGES),
    )
    skips: bool = option(True, "the decoder also gets the maps of the stages before the bottleneck")
    skip_join: str = option(
        "concat", "how the decoder joins a skip connection to its own map", one_of("concat", "sum")
    )
    query_from: str = option(
        "after",
        "whether memories read a stage's output before or after its activation",
        one_of("after", "before"),
    )
    batch_norm_momentum: float = option(
        0.9, "weight of the old value in the running statistics", BELOW_ONE
    )
    compute_dtype: str = option(
        "float32",
        "number type of the convolutions of both networks; parameters, statistics, similarities, "
        "memory reads and losses are always float32",
        one_of("float32", "bfloat16"),
    )


@dataclass
class MemoryConfig(Section):
    """The memories."""

    scales: str = option(
        "all",
        "which connections between encoder and decoder have a memory",
        one_of("all", "bottleneck", "none"),
    )
    items: int = option(500, "N, the number of items of a memory bank", at_least(1))
    division_rates: DivisionRates = option(
        (8, 8, 1),
        'rates (r_h, r_w, r_c) that divide a map into blocks, at all scales; or "pixel", blocks '
        "of one pixel; or one of these for each scale, finest first",
    )
    addressing: str = option(
        "threshold",
        'addressing rule and its hyperparameters, such as "threshold", "top_k(k=8)", or your own '
        'as "my_rules:sharpest(power=2)"; see `docs/addressing.md`',
    )
    temperature: float = option(1.0, "divisor of the similarities", above(0))
    init_scale: float = option(
        1.0, "norm of an initial item relative to the norm of the queries", above(0)
    )
    similarity: str = option(
        "cosine",
        'similarity of query and item: "cosine", "dot" (divided by the square root of the block '
        'size D) or "distance" (negative squared distance)',
    )
    learned_temperature: bool = option(
        False, "each bank learns its temperature, starting at `memory.temperature`"
    )
    banks: str = option(
        "one",
        'how block positions share memory banks: "one" bank for all positions of a scale, one for '
        'each "position", or one for each group of neighbouring positions, given as rows and '
        'columns of groups, such as "2x2"',
    )
    frozen: bool = option(
        False,
        "keep the random initial items, as a control; not with rules that update items themselves",
    )
    chunk_mib: int = option(
        32,
        "addressing weights that one device holds at once, in MiB; larger reads are divided into "
        "chunks, which saves memory and does not change the result; 0 never divides",
        at_least(0),
    )


@dataclass
class DiscriminatorConfig(Section):
    """The discriminator, built if `loss.adv` or `loss.ali` is above 0."""

    width: int = option(
        64, "channels of the first stage; each later stage has twice as many", at_least(1)
    )
    max_width: int = option(512, "the most channels of a stage", at_least(1))
    feature_layer: int = option(
        -1, "stage whose activations are the features f_D of the alignment loss; -1 is the last"
    )
    batch_norm: str = option(
        "separate",
        "whether real and reconstructed images pass through batch normalisation separately or as "
        "one joint batch",
        one_of("separate", "joint"),
    )
