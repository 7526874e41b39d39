"""Every field can be set on the command line."""

import pytest

from daad_jax import config as config_lib
from daad_jax.cli import flags as cli_flags
from daad_jax.config import Config


def parse(*arguments):
    from absl import flags

    given = cli_flags.parse_config_flags(flags.FlagValues(), ["train", *arguments])
    return cli_flags.load_config(given)


@pytest.mark.parametrize("path", config_lib.field_types())
def test_every_field_takes_its_own_default_as_text(path):
    value = config_lib.get_field(Config(), path)
    config = parse(f"--config.{path}={value}")
    assert config_lib.get_field(config, path) == value


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("memory.division_rates", "((32,32,1),(8,8,1))", ((32, 32, 1), (8, 8, 1))),
        ("memory.division_rates", "('pixel',(8,8,1))", ("pixel", (8, 8, 1))),
        ("memory.division_rates", "pixel", "pixel"),
        ("memory.division_rates", "(4, 4, 1)", (4, 4, 1)),
        ("memory.addressing", "top_k(k=8)", "top_k(k=8)"),
        ("memory.addressing", "my_rules:sharpest(power=2)", "my_rules:sharpest(power=2)"),
        ("model.widths", "(32,64)", (32, 64)),
        ("loss.extra", "l1=0.5, other=1", "l1=0.5, other=1"),
        ("loss.rec", "1", 1.0),
        ("train.steps", "7", 7),
        ("train.steps", "None", None),
        ("train.epochs", "3", 3),
        ("data.category", "8", "8"),
        ("data.flip_vertical", "False", False),
    ],
)
def test_text_becomes_a_value_of_the_fields_type(path, text, value):
    read = config_lib.get_field(parse(f"--config.{path}={text}"), path)
    assert read == value
    assert type(read) is type(value)


def test_epochs_replace_the_steps_of_a_preset_unless_they_are_none():
    assert parse("--config.train.epochs=3").train.steps is None
    config = parse("--config.train.epochs=None")
    assert (config.train.epochs, config.train.steps) == (None, 2000)
