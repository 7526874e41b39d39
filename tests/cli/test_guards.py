"""Each check of a run is made once on the way from the flags to the report."""

import collections

import pytest

from daad_jax.cli import main
from daad_jax.workdir import lock, run
from daad_jax.workdir.checkpoint import Checkpoints
from tests.cli.test_cli import train_args
from tests.cli.test_grid import grid_args
from tests.data.test_folder import make_category


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_category(folder, "nut")
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Counts how often the guards are called."""
    counts = collections.Counter()

    def count(holder, name):
        function = getattr(holder, name)

        def counted(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(holder, name, counted)

    count(lock, "hold")
    count(run, "_fingerprint")
    count(Checkpoints, "restore")
    return counts


@pytest.mark.parametrize(("verb", "locks"), [("train", 1), ("grid", 2)])  # a grid also claims it
def test_a_new_run_is_locked_and_hashed_once_and_not_read_back(root, tmp_path, calls, verb, locks):
    if verb == "train":
        args = train_args(root, tmp_path / "w", setting="ae")
    else:
        args = grid_args(root, tmp_path / "g.jsonl")
    assert main(args) == 0
    assert calls["hold"] == locks
    assert calls["_fingerprint"] == 1
    assert calls["restore"] == 0


def test_evaluate_locks_hashes_and_reads_once(root, tmp_path, calls):
    assert main(train_args(root, tmp_path / "w", setting="ae")) == 0
    calls.clear()
    assert main(["evaluate", f"--workdir={tmp_path / 'w'}"]) == 0
    assert (calls["hold"], calls["_fingerprint"], calls["restore"]) == (1, 1, 1)


def test_the_workdir_stays_locked_until_the_report_is_written(root, tmp_path, monkeypatch):
    from daad_jax.errors import CheckpointError
    from daad_jax.reports import html

    write, seen = html.write_report, []

    def write_report(folder, *arguments):
        with pytest.raises(CheckpointError):
            lock.check_free(folder)
        seen.append(folder)
        return write(folder, *arguments)

    monkeypatch.setattr(html, "write_report", write_report)
    assert main(train_args(root, tmp_path / "w", setting="ae")) == 0
    assert seen == [tmp_path / "w"]
    lock.check_free(tmp_path / "w")
