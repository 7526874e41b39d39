"""How often the train step is compiled, and what decides that two runs share one program."""

import collections
import dataclasses
import os

import jax
import jax.numpy as jnp
import pytest

from daad_jax import cli
from daad_jax import config as config_lib
from daad_jax.errors import ConfigError
from daad_jax.models.build import build_networks
from daad_jax.train import program
from daad_jax.train.losses import LOSSES, Loss
from daad_jax.train.step import step_spec
from tests.conftest import tiny_config, tiny_dataset
from tests.data.test_folder import make_category
from tests.processes import COMMAND, child, names_in, train_args
from tests.train.runs import fit, program_of

# Another valid value for each field that changes the networks or the step.
CHANGES = {
    "data.channels": 3,
    "data.flip_horizontal": False,
    "data.flip_vertical": False,
    "data.fit": "pad",
    "data.ignore": "0,0,0.5,0.5",
    "data.image_size": 32,
    "data.tile": 8,
    "discriminator.batch_norm": "joint",
    "discriminator.feature_layer": 0,
    "discriminator.max_width": 6,
    "discriminator.width": 5,
    "loss.adv": 0.25,
    "loss.adversarial": "saturating",
    "loss.ali": 0.25,
    "loss.alignment_updates_discriminator": True,
    "loss.extra": "l1=0.5",
    "loss.rec_norm": "mean_squared",
    "loss.ali_norm": "mean_squared",
    "loss.rec": 25.0,
    "memory.addressing": "top_k(k=2)",
    "memory.banks": "position",
    "memory.chunk_mib": 1,
    "memory.division_rates": (1, 1, 1),
    "memory.frozen": True,
    "memory.init_scale": 2.0,
    "memory.items": 9,
    "memory.learned_temperature": True,
    "memory.scales": "bottleneck",
    "memory.similarity": "dot",
    "memory.temperature": 0.25,
    "mesh.split_moments": True,
    "model.batch_norm_momentum": 0.5,
    "model.compute_dtype": "bfloat16",
    "model.query_from": "before",
    "model.skip_join": "sum",
    "model.skips": False,
    "model.widths": (4, 4),
    "train.corruption": "stain",
    "train.average_decay": 0.5,
    "train.batch_size": 16,
    "train.beta1": 0.5,
    "train.beta2": 0.5,
    "train.learning_rate": 1e-5,
}
# Fields that change neither; any field in none of the two lists makes a test fail.
WITHOUT_EFFECT = {
    "data.bad",
    "data.brightness",
    "data.cache_dir",
    "data.calibration_fraction",
    "data.calibration_groups",
    "data.category",
    "data.follow_links",
    "data.good",
    "data.max_bad_files",
    "data.memory_limit_mb",
    "data.name",
    "data.on_bad_file",
    "data.on_device",
    "data.resize",
    "data.root",
    "data.source",
    "data.split_seed",
    "data.tfds_dir",
    "data.test_fraction",
    "data.test_root",
    "data.tile_overlap",
    "data.value_range",
    "mesh.data",  # the mesh is a part of the key
    "mesh.items",
    "model.backbone",  # there is only one
    "seed",
    "setting",
    "train.checkpoint_every",
    "train.epochs",
    "train.keep_checkpoints",
    "train.log_every",
    "train.steps",
}


def program_key(config):
    """The arguments that a program is built, and cached, by."""
    data = config.data
    channels = data.channels + data.has_validity
    shape = (config.train.batch_size, *data.network_size, channels)
    return build_networks(config), step_spec(config), shape


def flat(config):
    return config_lib.flatten(config_lib.to_dict(config))


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_a_field_that_changes_the_step_gives_another_program(field):
    base = tiny_config()
    changed = tiny_config(**{field.replace(".", "__"): CHANGES[field]})
    assert flat(base)[field] != flat(changed)[field]
    assert program_key(changed) != program_key(base)
    assert program_key(changed) == program_key(
        tiny_config(**{field.replace(".", "__"): CHANGES[field]})
    )


def test_every_other_field_is_known_to_have_no_effect():
    fields = {name for name in flat(tiny_config()) if not name.startswith("score.")}
    assert fields - set(CHANGES) == WITHOUT_EFFECT


def test_configs_with_one_program_share_it(one_device):
    first = program_of(tiny_config(), one_device)
    second = program_of(tiny_config(seed=5, train__steps=99), one_device)
    other = program_of(tiny_config(memory__items=9), one_device)
    assert first is second
    assert first is not other


def test_a_changed_entry_of_the_table_of_losses_gives_another_program(monkeypatch):
    config = tiny_config(loss__extra="mine=0.5")
    keys = []
    for power in (1, 2):

        def mine(outputs, spec, power=power):
            return jnp.mean(jnp.abs(outputs.reconstruction)) ** power

        monkeypatch.setitem(LOSSES, "mine", Loss(mine, False, "a loss"))
        keys.append(program_key(config))
    assert keys[0] != keys[1]


def test_the_estimate_of_memory_counts_parameters_gradients_and_moments(one_device):
    small, large = (
        program_of(tiny_config("daad", memory__items=items), one_device) for items in (50, 5000)
    )
    added = large.parameters["memory"] - small.parameters["memory"]
    assert large.memory_bytes - small.memory_bytes >= 16 * added


@pytest.fixture
def compiled():
    """Counts the compilations of each function during a test, by its name."""
    counts = collections.Counter()

    def hear(event, seconds, fun_name="", **rest):
        if event == "/jax/core/compile/backend_compile_duration":
            counts[fun_name] += 1

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield counts
    jax.monitoring.unregister_event_duration_listener(hear)


@pytest.mark.slow
def test_runs_with_the_same_shapes_compile_the_step_once(tmp_path, one_device, compiled):
    for seed, count in enumerate((23, 21, 21, 23, 17)):
        config = tiny_config(
            seed=seed,
            data__category=f"category {seed}",
            data__on_device="yes",
            memory__items=13,  # no other test has as many
            train__steps=6 + seed,
            train__checkpoint_every=100 + seed,
            train__log_every=1 + seed,
        )
        dataset = tiny_dataset(config, seed)
        dataset = dataclasses.replace(dataset, train=dataset.train.take(slice(count)))
        fit(config, dataset, tmp_path / str(seed), mesh=one_device)
    assert compiled["jit(train_step)"] == compiled["jit(init)"] == 1
    assert compiled["jit(gather)"] == 3  # one for each number of images; no other test has these


@pytest.mark.slow
def test_a_second_process_uses_the_compilation_cache(tmp_path):
    make_category(tmp_path / "parts", "nut")
    cache, kept = tmp_path / "cache", []
    variables = {
        "JAX_COMPILATION_CACHE_DIR": os.fspath(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    for name in ("first", "second"):
        command = train_args(tmp_path / "parts", tmp_path / name, "--config.train.steps=2")
        with child("import sys" + COMMAND, "", "", *command, **variables) as process:
            _, error = process.communicate()
        assert process.returncode == 0, error
        kept.append([entry for entry in names_in(cache) if entry.endswith("-cache")])
    assert any("train_step" in entry for entry in kept[0])
    assert kept[0] == kept[1]
    for name in ("metrics.jsonl", "scores.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_step_that_the_compiler_finds_too_large_is_a_config_error(monkeypatch, one_device):
    def refuse(lowered):
        raise MemoryError("RESOURCE_EXHAUSTED: 20 GiB of temporaries")

    monkeypatch.setattr(program, "compile_step", refuse)
    config = tiny_config(memory__items=11)  # no other test has compiled it
    message = r"memory\.items: .* \(RESOURCE_EXHAUSTED: 20 GiB.*\); lower memory\.items \(11\), mod"
    with pytest.raises(ConfigError, match=message):
        program_of(config, one_device)


def test_a_full_device_is_one_error_line(monkeypatch, capsys):
    def overflow():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")

    assert cli.guarded(overflow) == 1
    assert capsys.readouterr().err.startswith("error: a device is out of memory; lower data.image")
