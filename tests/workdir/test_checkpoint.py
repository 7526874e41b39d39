"""Checkpoints that are complete, cut short by a kill, or damaged."""

import contextlib
import shutil
import time

import pytest
from orbax.checkpoint import StandardCheckpointer

from daad_jax.errors import CheckpointError, SaveError
from daad_jax.workdir import manifest
from daad_jax.workdir.checkpoint import Checkpoints
from tests.processes import PAUSE, child, files_of, kill, names_in, wait_for
from tests.workdir.checkpoints import (
    DAMAGE,
    largest_file,
    line_of,
    remove,
    restore,
    save,
    state,
)

SAVE = """
from pathlib import Path
from daad_jax.workdir.checkpoint import Checkpoints
from tests.workdir.checkpoints import state
with Checkpoints(Path(sys.argv[3]), 1) as checkpoints:
    for step in (2, 4):
        checkpoints.save(state(step))
"""
RESTORE = """
from pathlib import Path
from daad_jax.workdir.checkpoint import Checkpoints
from tests.workdir.checkpoints import shapes
with Checkpoints(Path(sys.argv[3])) as checkpoints:
    print("restored", checkpoints.restore(shapes()).step, flush=True)
"""
# Audit event and path where a save of step 4 is killed, and the step to restore afterwards.
PHASES = [
    ("open", r"/4\.orbax-checkpoint-tmp.*/_METADATA$", 2),  # arrays are being written
    ("os.rename", r"checkpoints/4$", 2),  # all is written, but has its temporary name
    ("os.rename", r"4/manifest\.json$", 4),  # complete, but without a manifest
    ("shutil.rmtree", r"checkpoints/2$", 4),  # complete, before the old one is removed
]


def test_the_newest_checkpoints_are_kept(tmp_path):
    save(tmp_path, 2, 9, 10, 11, keep=3)
    assert names_in(tmp_path / "checkpoints") == ["10", "11", "9"]
    assert restore(tmp_path) == 11


def test_sigkill_at_any_point_of_a_save_leaves_a_sound_checkpoint(tmp_path):
    folders = [tmp_path / str(index) for index in range(len(PHASES))]
    with contextlib.ExitStack() as stack:
        saving = [
            stack.enter_context(child(PAUSE + SAVE, event, path, folder))
            for (event, path, _), folder in zip(PHASES, folders, strict=True)
        ]
        for process in saving:
            wait_for(process, "paused")
            kill(process)
    for folder, (*_, step) in zip(folders, PHASES, strict=True):
        assert restore(folder) == step
        save(folder, 6, keep=1)
        assert names_in(folder / "checkpoints") == ["6"]
        assert restore(folder) == 6


def test_the_old_checkpoint_stays_until_the_new_one_has_its_manifest(tmp_path, monkeypatch):
    seen, write = [], manifest.write

    def spy(folder):
        seen.append(names_in(folder.parent))
        write(folder)

    monkeypatch.setattr(manifest, "write", spy)
    save(tmp_path, 1, 2, keep=1)
    assert seen == [["1"], ["1", "2"]]
    assert names_in(tmp_path / "checkpoints") == ["2"]


def test_a_checkpoint_gets_its_manifest_as_soon_as_it_is_complete(tmp_path):
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.save(state(2))
        assert manifest.check(tmp_path / "checkpoints/1")
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoints/2/manifest.json").exists():
            assert time.monotonic() < deadline
            checkpoints.check()
        checkpoints.save(state(3))
    assert names_in(tmp_path / "checkpoints") == ["2", "3"]
    assert manifest.check(tmp_path / "checkpoints/3")


@pytest.mark.parametrize("name", ["a[1]", "a*", "a**b", "a?", "a\\b", "\u691c", "a\udcff", "[!a]"])
def test_the_name_of_a_workdir_is_no_pattern(tmp_path, name):
    save(tmp_path / "ab", 2)
    save(tmp_path / name, 2, 4)
    assert restore(tmp_path / name) == 4
    assert names_in(tmp_path / name / "checkpoints") == ["2", "4"]
    assert names_in(tmp_path) == sorted(["ab", name])


def test_a_name_that_cannot_be_used_is_refused_before_anything_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp/[x]")
    with pytest.raises(
        CheckpointError, match=r"a\[1\]/checkpoints: .* set TMPDIR to a folder with"
    ):
        save(tmp_path / "a[1]", 2)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("lost", "message"), [("manifest.ocdbt", "its arrays cannot be found"), ("_METADATA", ".+")]
)
def test_a_save_counts_only_if_it_can_be_read_back(tmp_path, monkeypatch, lost, message):
    """The library reports success, and a file is missing."""
    save(tmp_path, 2)
    wait = StandardCheckpointer.wait_until_finished

    def lose(self):
        wait(self)
        (tmp_path / "checkpoints/4" / lost).unlink(missing_ok=True)

    monkeypatch.setattr(StandardCheckpointer, "wait_until_finished", lose)
    message = rf"checkpoints/4: cannot be saved \({message}\); .* to resume from step 2"
    with pytest.raises(SaveError, match=message):
        save(tmp_path, 4, keep=1)
    assert manifest.check(tmp_path / "checkpoints/2")
    monkeypatch.undo()
    assert restore(tmp_path, keep=1) == 2
    save(tmp_path, 4, keep=1)
    assert restore(tmp_path) == 4


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_to_any_file_is_found(tmp_path, damage, message):
    save(tmp_path / "w", 1)
    files = [path for path in files_of(tmp_path / "w") if path.name != manifest.MANIFEST_FILE]
    assert len(files) >= 7
    for path in files:
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "w/checkpoints/1", copy)
        name = path.relative_to(tmp_path / "w/checkpoints/1")
        damage(copy / name)
        with pytest.raises(manifest.DamagedError, match=f"^{name}.* {message}"):
            manifest.check(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_checkpoint_is_skipped_and_its_step_saved_again(
    tmp_path, damage, message, capsys
):
    save(tmp_path, 2, 4)
    damage(largest_file(tmp_path / "checkpoints/4"))
    before = files_of(tmp_path)
    assert restore(tmp_path) == 2
    warning = line_of(capsys)
    assert warning.startswith(f"warning: {tmp_path}/checkpoints/4: damaged: ")
    assert message in warning
    assert warning.endswith("; using step 2 instead\n")
    assert files_of(tmp_path) == before  # read-only
    for count in (1, 2):
        assert restore(tmp_path, keep=2) == 2
        assert f"moved to {tmp_path}/damaged/4-{count}" in line_of(capsys)
        save(tmp_path, 4)
        assert restore(tmp_path) == 4
        damage(largest_file(tmp_path / "checkpoints/4"))
    assert names_in(tmp_path / "damaged") == ["4-1", "4-2"]


def test_if_every_checkpoint_is_damaged_nothing_is_changed(tmp_path):
    save(tmp_path, 2, 4)
    remove(largest_file(tmp_path / "checkpoints/2"))
    (tmp_path / "checkpoints/4/manifest.json").write_text("{")
    before = files_of(tmp_path)
    message = (
        rf"{tmp_path}: every checkpoint is damaged \(4: manifest.json cannot be read; 2: .* is "
        "missing.*restore one from a backup, or remove"
    )
    with pytest.raises(CheckpointError, match=message):
        restore(tmp_path, keep=2)
    assert files_of(tmp_path) == before


def test_without_a_checkpoint_the_workdir_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"{tmp_path}: no checkpoint to load"):
        restore(tmp_path)


def test_a_checkpoint_without_a_manifest_is_tried(tmp_path, capsys):
    save(tmp_path, 2, 4)
    remove(tmp_path / "checkpoints/4/manifest.json")
    assert restore(tmp_path) == 4
    assert capsys.readouterr().err == ""
    for path in files_of(tmp_path / "checkpoints/4"):
        path.write_bytes(path.read_bytes()[:3])
    assert restore(tmp_path, keep=2) == 2
    assert "checkpoints/4: damaged: cannot be restored" in line_of(capsys)


def test_a_checkpoint_without_a_manifest_and_with_other_shapes_is_damaged(tmp_path, capsys):
    save(tmp_path, 2)
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(state(4, (3, 4)))
    remove(tmp_path / "checkpoints/4/manifest.json")
    assert restore(tmp_path) == 2
    assert "params/w is of shape (3, 4) in the checkpoint" in line_of(capsys)


def test_a_complete_checkpoint_that_cannot_be_restored_is_an_error(tmp_path, capsys):
    save(tmp_path, 2, 4)
    for path in files_of(tmp_path / "checkpoints/4/ocdbt.process_0"):
        path.write_bytes(b"?")
    manifest.write(tmp_path / "checkpoints/4")  # as if these bytes had been saved
    before = files_of(tmp_path)
    message = r"checkpoints/4: is complete but cannot be restored \(.*\); free memory, or install"
    with pytest.raises(CheckpointError, match=message) as caught:
        restore(tmp_path, keep=2)
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path) == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", [r"checkpoints/2/manifest.json$", r"checkpoints/2/_METADATA"])
def test_if_training_removes_the_checkpoint_that_is_read_the_newest_is_used(tmp_path, path):
    save(tmp_path, 2, keep=1)
    pause_once = PAUSE.replace("threading.Event().wait()", "sys.stdin.readline()")
    with child(pause_once + RESTORE, "open", path, tmp_path) as process:
        wait_for(process, "paused")
        save(tmp_path, 4, 6, keep=1)
        output, error = process.communicate("\n" * 100)
    assert output.splitlines()[-1:] == ["restored 6"], error
    assert process.returncode == 0
