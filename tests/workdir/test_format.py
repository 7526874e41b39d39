"""Workdirs of format 1, and config files that do not fit their checkpoint.

The run in ``tests/fixtures/checkpoint_format_1`` is stored in the repository, so that a change of
the format is noticed. `python -m tests.workdir.test_format` makes it anew; do that only when a
change of the format or of the scores is intended.
"""

import csv
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import daad_jax
from daad_jax import api
from daad_jax.errors import CheckpointError
from daad_jax.evaluation.evaluate import write_evaluation
from daad_jax.runtime import sharding
from daad_jax.workdir import manifest
from tests.conftest import tiny_config, tiny_dataset
from tests.processes import files_of

FIXTURE = Path(__file__).parents[1] / "fixtures" / "checkpoint_format_1"
STEP = 30


def make_fixture(folder=FIXTURE):
    """Trains and evaluates the run of the fixture; keeps the files that `load` and the test read.

    The training images of `tiny_dataset` are made by NumPy, so no data is needed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    config = tiny_config(
        "daad_plus",
        model__widths=(4,),
        memory__items=4,
        discriminator__max_width=4,
        train__steps=STEP,
        train__learning_rate=0.003,
        train__average_decay=0.5,
    )
    dataset, mesh = tiny_dataset(config), sharding.make_mesh(jax.devices()[:1])
    state = api.fit(config, dataset, workdir=folder, mesh=mesh)
    write_evaluation(folder, api.evaluate(config, state, dataset, mesh=mesh), dataset)
    shutil.rmtree(folder / "tensorboard")
    checkpoint = folder / f"checkpoints/{STEP}"
    unused = [folder / name for name in ("metrics.jsonl", "timings.jsonl", ".lock")]
    # Orbax does not read commit_success.txt; it holds the path of this machine.
    for path in (*unused, checkpoint / "commit_success.txt"):
        path.unlink()
    manifest.write(checkpoint)


@pytest.fixture
def format_1(tmp_path):
    return shutil.copytree(FIXTURE, tmp_path / "w")


def test_format_1_is_read_and_gives_the_same_scores(format_1):
    before = files_of(format_1)
    detector = daad_jax.load(format_1)
    result = detector.score(tiny_dataset(detector.config).test.images)
    with (format_1 / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The column "A" is scaled by the paper's protocol, on the test set.
    found = {name: values for name, values in result.scores.items() if name != "A"}
    found["A_calibrated"] = result.anomaly_score
    assert {"R", "L", "R_max", "L_max_relative"} <= found.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, [float(row[name]) for row in rows], rtol=1e-4)
    assert [str(int(one)) for one in result.defective] == [row["defective"] for row in rows]
    folder = format_1 / f"checkpoints/{STEP}"
    assert manifest.check(folder)
    assert json.loads((folder / "manifest.json").read_text())["format"] == 1
    assert files_of(format_1) == before


def test_a_newer_format_raises(format_1):
    path = format_1 / f"checkpoints/{STEP}/manifest.json"
    path.write_text(json.dumps({"format": 2, "contents": []}))
    message = r"manifest.json: has format 2, but this version of daad_jax reads formats up to 1"
    with pytest.raises(CheckpointError, match=message):
        daad_jax.load(format_1)


WIDER = "(4, 4, 6, 1)"
EDITS = [
    ("memory", "items", 5, "generator/params/memories_0/memory_items", "(4, 64)", "(5, 64)"),
    (
        "model",
        "widths",
        [6],
        "generator/params/decoder/conv_1/kernel",
        "(4, 4, 4, 1)",
        "(4, 4, 6, 1)",
    ),
]


@pytest.mark.parametrize(("group", "field", "value", "name", "old", "new"), EDITS)
def test_an_edited_config_names_the_first_parameter_that_does_not_fit(
    format_1, capsys, group, field, value, name, old, new
):
    edit_config(format_1, group, field, value)
    before = files_of(format_1)
    with pytest.raises(CheckpointError) as caught:
        daad_jax.load(format_1)
    message = str(caught.value)
    assert message.startswith(f"{format_1}/checkpoints/{STEP}: {name}")
    assert f"of shape {old} in the checkpoint and of shape {new} by config.json" in message
    assert "\n" not in message
    assert files_of(format_1) == before
    assert capsys.readouterr().err == ""


def test_arrays_that_the_config_does_not_use_are_named(format_1):
    edit_config(format_1, "train", "average_decay", 0.0)
    with pytest.raises(CheckpointError, match=r"30: average/.* in the checkpoint and missing by"):
        daad_jax.load(format_1)


def edit_config(workdir, group, field, value):
    config = json.loads((workdir / "config.json").read_text())
    config[group][field] = value
    (workdir / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    make_fixture()
