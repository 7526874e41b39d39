"""Addressing rules: how a query reads the items of a memory. Pure JAX.

`read` is the pure read of one query with a `Rule` and a similarity. ``memory.addressing`` of a
config is a rule as text, which `parse_rule` reads; ``memory.similarity`` is one of `SIMILARITIES`.
`daad_jax.addressing.contract` checks a rule, including one of your own.
"""

from daad_jax.addressing.parse import parse_rule
from daad_jax.addressing.read import (
    ItemUsage,
    MemoryRead,
    ReadSummary,
    chunk_count,
    item_usage,
    perplexity,
    read,
    read_batch,
    read_blocks,
    read_in_chunks,
    summarize,
)
from daad_jax.addressing.rule import (
    DIAGNOSTICS,
    Answer,
    Arrays,
    BatchReads,
    Properties,
    Request,
    Rule,
    Weighing,
    hyperparameter,
)
from daad_jax.addressing.rules import RULES
from daad_jax.addressing.rules.codebook import Nearest, NearestEMA
from daad_jax.addressing.rules.dense import (
    Gumbel,
    HardShrinkage,
    Mean,
    Softmax,
    Threshold,
    ThresholdRenormalized,
    TopK,
)
from daad_jax.addressing.rules.mnad import MNAD
from daad_jax.addressing.rules.retrieval import Hopfield, ProductKey
from daad_jax.addressing.rules.simplex import Entmax, Sparsemax
from daad_jax.addressing.similarity import (
    SIMILARITIES,
    Compare,
    cosine,
    distance,
    get_similarity,
    matmul,
    normalized,
    scaled_dot,
)
