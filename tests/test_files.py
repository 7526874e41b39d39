import contextlib
import os
import sys

from daad_jax import files, html_report
from daad_jax.evaluation import evaluate
from daad_jax.training import train
from tests.conftest import tiny_config, tiny_dataset


def test_a_file_is_replaced_by_a_whole_one_or_stays(tmp_path):
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


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """That the order is kept; that the disk obeys can only be seen when the power fails."""
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


def test_what_a_run_leaves_is_never_written_in_place(tmp_path, one_device):
    config, opened = tiny_config(train__steps=1), set()
    dataset = tiny_dataset(config)

    def hear(name, arguments):
        if name == "open" and isinstance(arguments[0], (str, os.PathLike)):
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR):
                opened.add(os.fspath(path))

    sys.addaudithook(hear)  # it cannot be removed again
    train(config, dataset, tmp_path, mesh=one_device, log=lambda _: None)
    html_report.write_report(tmp_path, evaluate(tmp_path, dataset, mesh=one_device), dataset)
    left = {os.fspath(path) for path in tmp_path.iterdir() if path.is_file()}
    names = {os.path.basename(path) for path in left}
    assert {"reference.npz", "calibration.json", "scores.csv", "evaluation.json"} <= names
    assert {"config.json", "images.json", "report.html"} <= names
    in_place = {os.path.basename(path) for path in left & opened}
    assert in_place == {"metrics.jsonl", "timings.jsonl", ".lock"}
