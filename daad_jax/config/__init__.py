"""The config of a run: typed fields, their checks, the paper's settings, presets, JSON values.

Imports neither JAX nor NumPy.
"""

from daad_jax.config.folders import folder_names
from daad_jax.config.networks import (
    DiscriminatorConfig,
    DivisionRates,
    MemoryConfig,
    ModelConfig,
    Rates,
)
from daad_jax.config.presets import PRESETS
from daad_jax.config.schema import (
    Config,
    DataConfig,
    LossConfig,
    MeshConfig,
    ScoreConfig,
    TrainConfig,
    ValueRange,
)
from daad_jax.config.settings import SETTINGS, from_setting
from daad_jax.config.text import (
    field_types,
    flatten,
    from_dict,
    from_flat,
    get_field,
    set_field,
    set_fields,
    to_dict,
)
from daad_jax.config.validation import validate
