"""The schema, settings, `validate`, and configs as JSON values."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daad_jax import config as config_lib
from daad_jax.config import Config, LossConfig, text
from daad_jax.errors import ConfigError
from tests.conftest import tiny_config

ROOT = Path(__file__).parents[2]

# Section 4.1 and the sentences on MVTec AD; for daad_plus.
PAPER = {
    "data.source": "folder",
    "data.image_size": 256,
    "data.channels": 3,
    "data.flip_horizontal": True,
    "data.flip_vertical": True,
    "data.calibration_fraction": 0.0,
    "model.backbone": "dcgan",
    "model.skips": True,
    "memory.division_rates": (8, 8, 1),
    "memory.items": 500,
    "memory.scales": "all",
    "memory.addressing": "threshold",
    "memory.temperature": 1.0,
    "loss.rec": 50.0,
    "loss.adv": 0.5,
    "loss.ali": 0.5,
    "loss.extra": "",
    "train.learning_rate": 2e-4,
    "train.beta1": 0.9,
    "train.beta2": 0.999,
    "train.epochs": 1000,
    "train.steps": None,
    "train.batch_size": 8,
    "score.gamma": 0.9,
    "score.protocol": "paper",
    "score.decision": "A",
}


@pytest.mark.parametrize("path", PAPER)
def test_the_defaults_are_the_papers_values(path):
    assert config_lib.get_field(Config(), path) == PAPER[path]


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
def test_the_settings_are_those_of_the_papers_tables(setting):
    skips, scales, rates, discriminator, learning_rate = SETTINGS[setting]
    config = config_lib.from_setting(setting)
    assert config.setting == setting
    assert config.model.skips == skips
    assert config.memory.scales == scales
    if rates is not None:
        assert config.memory.division_rates == rates
    assert config.has_discriminator == discriminator
    assert config.train.learning_rate == learning_rate
    assert config.score.gamma == (0.9 if discriminator else 1.0)


def test_every_default_passes_its_own_check():
    config_lib.validate(Config())


def test_every_field_is_declared_with_a_meaning():
    for path, declared in text.fields().items():
        assert len(declared.metadata["sentence"]) > 10, path
        assert not declared.metadata["sentence"].endswith("."), path


def test_configs_survive_json():
    config = tiny_config(
        memory__division_rates=((2, 2, 1), "pixel"), memory__addressing="top_k(k=8)"
    )
    values = json.loads(json.dumps(config_lib.to_dict(config)))
    assert config_lib.from_dict(values) == config
    assert config_lib.from_flat(config_lib.flatten(values)) == config


def test_a_copy_is_independent():
    config = tiny_config()
    copied = copy.deepcopy(config)
    assert copied == config
    copied.memory.items += 1
    assert copied != config


def test_fields_are_set_with_their_own_type():
    config = Config()
    config_lib.set_field(config, "train.learning_rate", 1)
    assert isinstance(config.train.learning_rate, float)
    config_lib.set_field(config, "model.widths", [4, 8])
    assert config.model.widths == (4, 8)
    config_lib.set_field(config, "memory.division_rates", [[2, 2, 1], "pixel"])
    assert config.memory.division_rates == ((2, 2, 1), "pixel")
    config_lib.set_field(config, "train.epochs", None)
    assert config.train.epochs is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.channels", 2, "data.channels: 2 must be 1 or 3"),
        ("data.image_size", 1, "data.image_size: 1 must be from 2 to 8192"),
        ("data.calibration_groups", -1, "data.calibration_groups: -1 must be at least 0"),
        ("data.split_seed", -1, "data.split_seed: -1 must be from 0 to 4294967295"),
        ("data.brightness", "even", "data.brightness: no 'even'; known: equal, kept"),
        ("model.widths", (), "model.widths: () must be 1 to 13 numbers, each at least 1"),
        ("model.widths", (8, 0), "model.widths: (8, 0) must be 1 to 13 numbers, each at least 1"),
        ("model.widths", (1,) * 14, "must be 1 to 13 numbers, each at least 1"),
        ("model.skip_join", "add", "model.skip_join: no 'add'"),
        ("memory.items", 0, "memory.items: 0 must be at least 1"),
        ("memory.temperature", 0.0, "memory.temperature: 0.0 must be finite and above 0"),
        ("memory.scales", "some", "memory.scales: no 'some'"),
        ("memory.chunk_mib", -1, "memory.chunk_mib: -1 must be at least 0"),
        ("loss.rec", float("nan"), "loss.rec: nan must be finite and at least 0"),
        ("loss.adversarial", "x", "loss.adversarial: no 'x'"),
        ("loss.extra", "l1", "loss.extra: 'l1' is not NAME=WEIGHT"),
        ("train.batch_size", 0, "train.batch_size: 0 must be at least 1"),
        ("train.learning_rate", -1.0, "train.learning_rate: -1.0 must be finite and above 0"),
        ("train.steps", 0, "train.steps: 0 must be at least 1"),
        ("train.epochs", 0, "train.epochs: 0 must be at least 1"),
        ("score.gamma", 1.5, "score.gamma: 1.5 must be from 0 to 1"),
        ("score.map", "eror", "score.map: no 'eror'; did you mean 'error'"),
        ("score.map_scales", (4.0, -1.0), "score.map_scales: (4.0, -1.0) must be at most 8"),
        ("score.protocol", "calibrated", "score.protocol: 'calibrated' needs"),
        ("seed", -1, "seed: -1 must be from 0 to 4294967295"),
        ("setting", "dad_plus", "setting: no setting 'dad_plus'; did you mean 'daad_plus'?"),
    ],
)
def test_values_that_cannot_work_are_named(path, value, message):
    config = tiny_config()
    config_lib.set_field(config, path, value)
    with pytest.raises(ConfigError) as caught:
        config_lib.validate(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_one_length_of_training_is_needed():
    config = tiny_config(train__steps=None, train__epochs=None)
    with pytest.raises(ConfigError, match=r"train.steps: None, as is train.epochs; set one"):
        config_lib.validate(config)


def test_gamma_below_one_needs_a_discriminator():
    config = tiny_config("daad", score__gamma=0.9)
    with pytest.raises(ConfigError, match=r"score.gamma: 0.9 needs a discriminator"):
        config_lib.validate(config)


def test_maps_of_features_need_a_discriminator_and_scales_at_least_the_first_smoothing():
    config = tiny_config("daad", score__map="fused")
    with pytest.raises(ConfigError, match=r"score.map: 'fused' needs a discriminator; set it to"):
        config_lib.validate(config)
    config = tiny_config(score__map="fused", score__map_sigma=2.0, score__map_scales=[2.0, 8])
    config_lib.validate(config)
    config.score.map_scales = (2.0, 1.5)
    with pytest.raises(ConfigError, match=r"score.map_scales: .* below score.map_sigma=2; lower"):
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
    with pytest.raises(ConfigError, match=r"train.steps: 'x' is not a whole number or None"):
        config_lib.from_dict({"train": {"steps": "x"}})
    with pytest.raises(ConfigError, match=r"memory.division_rates: 'x' is not 'pixel', three"):
        config_lib.from_dict({"memory": {"division_rates": "x"}})


def test_fields_that_do_not_exist_cannot_be_assigned():
    config = Config()
    with pytest.raises(ConfigError, match=r"^memory.itmes: no such config field; .*'items'\?"):
        config.memory.itmes = 3
    with pytest.raises(ConfigError, match=r"^sed: no such config field; .*'seed'\?"):
        config.sed = 3


def test_assigned_values_get_the_type_of_their_field():
    config = Config()
    config.model.widths, config.memory.temperature = [4, 8], 10**17
    assert config.model.widths == (4, 8)
    assert isinstance(config.memory.temperature, float)


def test_validate_names_assigned_values_of_another_type():
    config = tiny_config()
    config.memory.items = "8"
    with pytest.raises(ConfigError, match=r"^memory.items: '8' is not a whole number"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    "path", ["memory.cut", "memory.top_k", "train.steps_per_dispatch", "score.verdict"]
)
def test_fields_without_a_use_are_unknown(path):
    with pytest.raises(ConfigError, match="no such config field"):
        config_lib.set_field(Config(), path, 1)


def test_the_weights_of_further_losses_are_read_from_their_text():
    base = {"rec": 50.0, "adv": 0.5, "ali": 0.5}
    assert LossConfig().weights() == base
    assert LossConfig(extra=" ").weights() == base
    assert LossConfig(extra="l1=0.5, other = 1").weights() == {**base, "l1": 0.5, "other": 1.0}


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("l1", "'l1' is not NAME=WEIGHT"),
        ("l1=", "'l1=' is not NAME=WEIGHT"),
        ("=1", "'=1' is not NAME=WEIGHT"),
        ("l1=one", "'l1=one' is not NAME=WEIGHT"),
        ("l1=-1", "'l1=-1' is not NAME=WEIGHT"),
        ("l1=nan", "'l1=nan' is not NAME=WEIGHT"),
        ("l1=1,", "'' is not NAME=WEIGHT"),
        ("a b=1", "'a b=1' is not NAME=WEIGHT"),
        ("l1=1, l1=2", "'l1' has a weight already"),
        ("rec=1", "'rec' has a weight already"),
    ],
)
def test_weights_that_cannot_be_read_are_named(extra, problem):
    with pytest.raises(ConfigError) as caught:
        LossConfig(extra=extra).weights()
    assert str(caught.value).startswith(f"loss.extra: {problem}")


def test_importing_the_config_imports_no_numeric_library():
    code = (
        "import sys, daad_jax.config; from daad_jax.config.presets import default\n"
        "default()\n"
        "print([name for name in ('jax', 'flax', 'numpy') if name in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == "[]\n"


def test_values_of_fields_can_be_hashed():
    assert all(hash(getattr(holder, entry.name)) is not None for holder, entry in leaves())


def leaves():
    config = tiny_config()
    config.memory.division_rates = [[2, 2, 1], "pixel"]
    for section in (config.data, config.model, config.memory, config.loss, config.score):
        yield from ((section, entry) for entry in dataclasses.fields(section))
