import json

import pytest

from configs import default, mvtec
from daad_jax import config as config_lib
from daad_jax.errors import ConfigError
from tests.conftest import tiny_config

# Section 4.1 and the sentences on MVTec AD; for daad_plus.
PAPER = {
    "data.image_size": 256,
    "data.channels": 3,
    "data.flip_horizontal": True,
    "data.flip_vertical": True,
    "data.calibration_fraction": 0.0,
    "memory.division_rates": (8, 8, 1),
    "memory.items": 500,
    "memory.scales": "all",
    "memory.addressing": "threshold",
    "memory.temperature": 1.0,
    "model.skips": True,
    "loss.rec": 50.0,
    "loss.adv": 0.5,
    "loss.ali": 0.5,
    "train.learning_rate": 2e-4,
    "train.beta1": 0.9,
    "train.beta2": 0.999,
    "train.epochs": 1000,
    "train.steps": None,
    "train.batch_size": 8,
    "score.gamma": 0.9,
    "score.protocol": "paper",
}


def get(config, path):
    section, name = path.split(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize("path", PAPER)
def test_the_mvtec_config_has_the_papers_values(path):
    assert get(mvtec.get_config(), path) == PAPER[path]


# skips, memories, rates, discriminator, learning rate: Tables 3 and 5.
SETTINGS = {
    "ae": (False, "none", None, False, 1e-4),
    "ae_skip": (True, "none", None, False, 1e-4),
    "memae": (False, "bottleneck", "pixel", False, 1e-4),
    "memae_skip": (True, "all", "pixel", False, 1e-4),
    "daad": (True, "all", (8, 8, 1), False, 1e-4),
    "daad_plus": (True, "all", (8, 8, 1), True, 2e-4),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_settings_are_those_of_the_tables(setting):
    skips, scales, rates, discriminator, learning_rate = SETTINGS[setting]
    config = mvtec.get_config(setting)
    assert config.model.skips == skips
    assert config.memory.scales == scales
    if rates is not None:
        assert config.memory.division_rates == rates
    assert config.has_discriminator == discriminator
    assert config.train.learning_rate == learning_rate
    assert config.score.gamma == (0.9 if discriminator else 1.0)


def test_memae_at_256_is_the_papers_single_scale_pixel_memory():
    specs = config_lib.memory_specs(mvtec.get_config("memae"))
    assert specs[:3] == (None, None, None)
    assert specs[3].rates == (16, 16, 1)
    assert specs[3].items == 500


@pytest.mark.parametrize("module", [default, mvtec])
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_config_and_setting_is_valid(module, setting):
    config = module.get_config(setting)
    config.data.root = config.data.root or "somewhere"
    config_lib.validate(config)
    assert config.setting == setting


def test_configs_survive_json():
    config = default.get_config()
    values = json.loads(json.dumps(config_lib.to_dict(config)))
    assert config_lib.from_dict(values) == config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.image_size", 30, "data.image_size: 30 is not a multiple of 4"),
        ("data.channels", 2, "data.channels: 2 must be 1 or 3"),
        ("data.source", "mvtek", "data.source: no 'mvtek'; did you mean 'mvtec'"),
        ("model.widths", (), "model.widths"),
        ("model.skip_join", "add", "model.skip_join: no 'add'"),
        ("memory.items", 0, "memory.items: 0 must be at least 1"),
        ("memory.division_rates", (3, 2, 1), "rate 3 does not divide the height of scale 1"),
        ("memory.addressing", "treshold", "did you mean 'threshold'"),
        ("memory.temperature", 0.0, "memory.temperature"),
        ("memory.scales", "some", "memory.scales: no 'some'"),
        ("loss.rec", float("nan"), "loss.rec"),
        ("loss.adversarial", "x", "loss.adversarial"),
        ("train.batch_size", 0, "train.batch_size"),
        ("train.learning_rate", -1.0, "train.learning_rate"),
        ("train.steps", 0, "train.steps: 0 must be at least 1"),
        (
            "train.steps_per_dispatch",
            101,
            "train.steps_per_dispatch: 101 is more than train.checkpoint_every, 100",
        ),
        ("score.gamma", 1.5, "score.gamma"),
        ("score.verdict", "R_maxi", "score.verdict: no 'R_maxi'"),
        ("score.protocol", "calibrated", "score.protocol: 'calibrated' needs"),
        ("discriminator.feature_layer", 5, "discriminator.feature_layer: 5"),
        ("seed", -1, "seed: -1"),
    ],
)
def test_values_that_cannot_work_are_named(path, value, message):
    config = tiny_config()
    config_lib.set_field(config, path, value)
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        config_lib.validate(config)


def test_a_score_that_needs_a_discriminator_is_refused_without_one():
    config = tiny_config("daad", score__gamma=0.9)
    with pytest.raises(ConfigError, match=r"score.gamma: 0.9 needs a discriminator"):
        config_lib.validate(config)
    config = tiny_config("daad", score__verdict="L_max")
    with pytest.raises(ConfigError, match=r"score.verdict: 'L_max' needs a discriminator"):
        config_lib.validate(config)


def test_unknown_settings_fields_and_types_are_named():
    with pytest.raises(ConfigError, match="no setting 'dad_plus'; did you mean 'daad_plus'"):
        config_lib.from_setting("dad_plus")
    with pytest.raises(ConfigError, match=r"memory.itmes: no such config field.*'memory.items'"):
        config_lib.from_dict({"memory": {"itmes": 3}})
    with pytest.raises(ConfigError, match=r"memory.items: 'many' is not a whole number"):
        config_lib.from_dict({"memory": {"items": "many"}})
    with pytest.raises(ConfigError, match=r"model.widths: .* is not a list of whole numbers"):
        config_lib.from_dict({"model": {"widths": ["a"]}})
