"""The models that the paper compares, and their configs at each scale.

A config is the paper's setting, changed by the fields of its scale and of its model. So the fields
of a scale are all that differs from what the paper states. The model ``default`` is the package's
own preset instead.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from daad_jax import config as config_lib
from daad_jax.config import PRESETS, Config

Changes = Mapping[str, Any]

MVTEC, TEXTURES, MNIST, CIFAR10 = "mvtec", "textures", "mnist", "cifar10"
DEFAULT = "default"
RATES = (1, 2, 4, 8, 16)


class Model(NamedTuple):
    """A row of the paper's tables: a setting, and the fields in which it differs from it.

    `few_stages` takes the network of Table 4, whose maps can be divided by all of its rates.
    `depth` keeps only that many stages; 0 keeps all.
    """

    setting: str
    changes: Changes = MappingProxyType({})
    few_stages: bool = False
    depth: int = 0


class Scale(NamedTuple):
    """How large the networks are and how long they train.

    Attributes:
        fields: the changed fields for each set of images.
        few_stages: further changes for Table 4.
        learning_rate: of all models; None keeps the paper's.
        seeds: the seeds, if the user names none.
        stand_ins: whether categories that the paper does not have are run too.
        classes: how many classes of MNIST and CIFAR-10 are run, from the first on.
        only: the categories that are run at most; None for all.
        tiny: whether everything is then cut to a few channels, items and updates.
    """

    fields: Mapping[str, Changes]
    few_stages: Changes
    learning_rate: float | None
    seeds: tuple[int, ...]
    stand_ins: bool = True
    classes: int = 10
    only: tuple[str, ...] | None = None
    tiny: bool = False


_ADV: Changes = {"loss.adv": 0.5, "train.learning_rate": 2e-4}
_ALI: Changes = {**_ADV, "loss.ali": 0.5, "score.gamma": 0.9}

MODELS: dict[str, Model] = {
    **{setting: Model(setting) for setting in config_lib.SETTINGS},
    **{f"daad_r{rate}": Model("daad", {"memory.division_rates": (rate, rate, 1)}, few_stages=True)
       for rate in RATES},
    "no_memory": Model("ae_skip", few_stages=True),
    **{f"{setting}_adv": Model(setting, _ADV) for setting in ("ae", "memae", "daad")},
    **{f"{setting}_adv_ali": Model(setting, _ALI) for setting in ("ae", "memae")},
    **{f"memae_{2**depth}x": Model("memae", depth=depth) for depth in (1, 2, 3)},
}  # fmt: skip
"""The models by the name that the results have for them."""

TITLES = {
    "ae": "AE",
    "memae": "MemAE",
    "ae_skip": "AE+Skip",
    "memae_skip": "MemAE+Skip",
    "daad": "DAAD",
    "daad_plus": "DAAD+",
    DEFAULT: "our default",
    "no_memory": "no memory",
    **{f"daad_r{rate}": f"r = {rate}" for rate in RATES},
    **{f"memae_{rate}x": f"MemAE {rate}x" for rate in (2, 4, 8)},
}
"""The names of the models on the pages."""

_PRESETS = {MVTEC: "folder", TEXTURES: "default", MNIST: "mnist", CIFAR10: "cifar10"}

_ONE_CLASS: Changes = {  # the paper says nothing about Table 2 but its protocol
    "data.image_size": 32,
    "data.flip_horizontal": False,
    "data.flip_vertical": False,
    "model.skips": False,
    "memory.scales": "bottleneck",
}
_DIGITS: Changes = {
    **_ONE_CLASS,
    "data.channels": 1,
    "data.resize": "bilinear",
    "memory.division_rates": (1, 1, 1),
}
_OBJECTS: Changes = {**_ONE_CLASS, "memory.division_rates": (2, 2, 1)}
_SMALL: Changes = {
    "data.image_size": 64,
    "model.widths": (16, 32, 64, 128),
    "memory.items": 100,
    "memory.division_rates": (4, 4, 1),
    "discriminator.width": 16,
    "discriminator.max_width": 128,
    "train.steps": 2000,
    "score.map_sigma": 1.0,
    "score.bootstrap_samples": 200,
}
_GREY: Changes = {**_SMALL, "data.channels": 1}
_SMALL_SETS: dict[str, Changes] = {
    MVTEC: _SMALL,
    TEXTURES: _GREY,
    MNIST: {**_SMALL, **_DIGITS, "memory.items": 20},
    CIFAR10: {
        **_SMALL,
        **_OBJECTS,
        "model.widths": (32, 64, 128, 256),
        "discriminator.width": 32,
        "discriminator.max_width": 256,
    },
}
_PAPER_SETS: dict[str, Changes] = {
    MVTEC: {},
    TEXTURES: {"data.channels": 1},
    MNIST: {**_DIGITS, "memory.items": 20},
    CIFAR10: _OBJECTS,
}
_TWO_STAGES: Changes = {"model.widths": (32, 64)}

SCALES: dict[str, Scale] = {
    "paper": Scale(_PAPER_SETS, {}, None, (0,), stand_ins=False),
    "small": Scale(_SMALL_SETS, _TWO_STAGES, 1e-3, (0, 1, 2)),
    "smoke": Scale(
        {**_SMALL_SETS, MVTEC: _GREY},  # so that all share compiled programs
        _TWO_STAGES,
        1e-3,
        (0,),
        classes=1,
        only=("carpet", "gravel"),
        tiny=True,
    ),
}


def build(scale: str, images: str, name: str) -> Config:
    """The config of a model for a set of images, without a category, a seed or a folder.

    `images` is a key of `Scale.fields` and `name` one of `MODELS`, or "default".
    """
    chosen = SCALES[scale]
    config = PRESETS[_PRESETS[images]]() if name == DEFAULT else _paper_model(chosen, images, name)
    if chosen.tiny:
        _shrink(config)
    return config


def _paper_model(chosen: Scale, images: str, name: str) -> Config:
    model = MODELS[name]
    config = config_lib.from_setting(model.setting)
    config.data.source = "folder" if images == MVTEC else images
    few = chosen.few_stages if model.few_stages else {}
    for path, value in {**chosen.fields[images], **few, **model.changes}.items():
        if not _keeps(config, path):
            config_lib.set_field(config, path, value)
    if model.depth:
        config.model.widths = config.model.widths[: model.depth]
    if chosen.learning_rate is not None:
        config.train.learning_rate = chosen.learning_rate
    return config


def _keeps(config: Config, path: str) -> bool:
    """Whether the field makes the setting what it is: memory of pixels, or none."""
    return config_lib.get_field(config, path) in ("pixel", "none")


def _shrink(config: Config) -> None:
    """Cuts a config to what a test can wait for. Some models are then the same and run once."""
    config.model.widths = (4, 4)[: len(config.model.widths)]
    config.memory.items = config.discriminator.width = config.discriminator.max_width = 4
    config.train.steps, config.score.bootstrap_samples = 2, 10
