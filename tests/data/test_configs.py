import importlib.util
from pathlib import Path

import pytest

from daad_jax import config as config_lib
from daad_jax.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs"


def get_config(name, setting):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(setting)


@pytest.mark.parametrize("setting", config_lib.SETTINGS)
@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_every_setting_is_legal(name, setting):
    config = get_config(name, setting)
    config_lib.validate(config)
    data = config.data
    assert config.setting == setting
    assert data.source == name
    assert (data.image_size, data.channels) == (32, 3 if name == "cifar10" else 1)
    assert not data.flip_horizontal
    assert not data.flip_vertical
    assert data.calibration_fraction == 0.1
    assert config.score.protocol == "calibrated"
    pixelwise = setting.startswith("memae")
    assert (config.memory.division_rates == "pixel") == pixelwise


def test_a_named_set_needs_its_name():
    config = get_config("mnist", "ae")
    config.data.source = "tfds"
    with pytest.raises(ConfigError, match=r"^data\.name: give "):
        config_lib.validate(config)
    config.data.name = "fashion_mnist"
    config_lib.validate(config)
