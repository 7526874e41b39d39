"""How often the one expensive program is compiled, within a process and over processes."""

import collections
import dataclasses
import os

import jax
import pytest

from daad_jax.training import train
from tests.conftest import tiny_config, tiny_dataset
from tests.data.test_folder import make_category
from tests.processes import TRAIN, child, names_in
from tests.test_cli import train_args


def quiet(_):
    pass


@pytest.fixture
def compiled():
    """How often each function is compiled from now on, by its name."""
    counts = collections.Counter()

    def hear(event, seconds, fun_name="", **rest):
        if event == "/jax/core/compile/backend_compile_duration":
            counts[fun_name] += 1

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield counts
    jax.monitoring.unregister_event_duration_listener(hear)


def test_runs_of_one_shape_compile_the_step_once(tmp_path, one_device, compiled):
    for seed, count in enumerate((23, 21, 21, 23, 17)):
        config = tiny_config(
            seed=seed,
            data__category=f"category {seed}",
            data__on_device="yes",
            memory__items=13,  # as no other test has it
            train__steps=6 + seed,
            train__steps_per_dispatch=3,
            train__checkpoint_every=100 + seed,
            train__log_every=1 + seed,
        )
        dataset = tiny_dataset(config, seed)
        dataset = dataclasses.replace(dataset, train=dataset.train.take(slice(count)))
        train(config, dataset, tmp_path / str(seed), mesh=one_device, log=quiet)
    assert compiled["jit(train_step)"] == compiled["jit(train_steps)"] == compiled["jit(init)"] == 1
    # By the number of images, as no other test has it: three batches of 23, 21, 17, one of 21, 17.
    assert compiled["jit(gather)"] == 5


@pytest.mark.slow
def test_a_second_process_compiles_nothing_anew(tmp_path):
    make_category(tmp_path / "parts", "nut")
    cache, kept = tmp_path / "cache", []
    variables = {
        "JAX_COMPILATION_CACHE_DIR": os.fspath(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    for name in ("first", "second"):
        command = train_args(tmp_path / "parts", tmp_path / name, "--config.train.steps=2")
        with child("import sys" + TRAIN, "", "", *command, **variables) as process:
            _, error = process.communicate()
        assert process.returncode == 0, error
        kept.append([entry for entry in names_in(cache) if entry.endswith("-cache")])
    assert any("train_step" in entry for entry in kept[0])
    assert kept[0] == kept[1]
    for name in ("metrics.jsonl", "scores.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
