import contextlib
import json
import os
import sys

import pytest

from daad_jax import api
from daad_jax.evaluation.evaluate import write_evaluation
from daad_jax.reports import html
from daad_jax.runtime import files
from tests.conftest import tiny_config, tiny_dataset


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), files.replacing(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with files.replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_flushed_to_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    """Checks the order of the calls; whether the disk obeys shows only in a power failure."""
    path, synced = tmp_path / "file", []
    path.write_text("old")
    sync = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda file: synced.append((os.pread(file, 9, 0), path.read_text(), sync(file))),
    )
    with files.replacing(path) as partial:
        partial.write_text("new")
    assert synced == [(b"new", "old", None)]


def test_json_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": [1, 2.5]})
    with contextlib.suppress(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, 2.5]}


@pytest.mark.slow
def test_no_result_file_of_a_run_is_written_in_place(tmp_path, one_device):
    config, opened = tiny_config(train__steps=1), set()
    dataset = tiny_dataset(config)

    def hear(name, arguments):
        if name == "open" and isinstance(arguments[0], (str, os.PathLike)):
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR):
                opened.add(os.fspath(path))

    sys.addaudithook(hear)  # It cannot be removed again.
    state = api.fit(config, dataset, workdir=tmp_path, mesh=one_device, log=lambda _: None)
    evaluation = api.evaluate(config, state, dataset, mesh=one_device)
    write_evaluation(tmp_path, evaluation, dataset)
    html.write_report(tmp_path, evaluation, dataset)
    left = {os.fspath(path) for path in tmp_path.iterdir() if path.is_file()}
    names = {os.path.basename(path) for path in left}
    assert {"reference.npz", "calibration.json", "scores.csv", "evaluation.json"} <= names
    assert {"config.json", "images.json", "report.html"} <= names
    in_place = {os.path.basename(path) for path in left & opened}
    assert in_place == {"metrics.jsonl", "timings.jsonl", ".lock"}
