"""The presets, and the files in `configs/` that lead to them."""

import runpy
from pathlib import Path

import pytest

from daad_jax import config as config_lib
from daad_jax.config import PRESETS, SETTINGS

DOORS = Path(__file__).parents[2] / "configs"


def test_there_is_a_config_file_for_each_preset():
    assert list(PRESETS) == ["cifar10", "default", "digits", "folder", "mnist", "mvtec"]
    assert sorted(path.stem for path in DOORS.glob("*.py")) == list(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_config_files_and_presets_agree(preset):
    door = runpy.run_path(str(DOORS / f"{preset}.py"))["get_config"]
    assert door() == PRESETS[preset]()
    for setting in SETTINGS:
        assert door(setting) == PRESETS[preset](setting)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_and_setting_is_valid(preset, setting):
    config = PRESETS[preset](setting)
    config_lib.validate(config)
    assert config.setting == setting
    assert (config.memory.division_rates == "pixel") == setting.startswith("memae")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_returns_a_new_config_each_time(preset):
    changed = PRESETS[preset]()
    changed.memory.items += 1
    assert PRESETS[preset]() != changed


def test_the_mvtec_preset_is_the_papers_setting():
    assert PRESETS["mvtec"]() == config_lib.Config()
    assert PRESETS["mvtec"]("memae") == config_lib.from_setting("memae")


@pytest.mark.parametrize(
    ("preset", "source"),
    [
        ("default", "textures"),
        ("folder", "folder"),
        ("mvtec", "folder"),
        ("digits", "digits"),
        ("mnist", "mnist"),
        ("cifar10", "cifar10"),
    ],
)
def test_presets_read_their_own_source(preset, source):
    assert PRESETS[preset]().data.source == source


@pytest.mark.parametrize("preset", ["digits", "mnist", "cifar10"])
def test_presets_of_labelled_sets_hold_images_out_and_do_not_flip(preset):
    data = PRESETS[preset]().data
    assert (data.image_size, data.channels) == (32, 3 if preset == "cifar10" else 1)
    assert not data.flip_horizontal
    assert not data.flip_vertical
    assert data.calibration_fraction == 0.1
