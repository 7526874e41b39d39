"""Which config and which images a workdir belongs to."""

import concurrent.futures
import json

import numpy as np
import pytest

from daad_jax import config as config_lib
from daad_jax.errors import CheckpointError
from daad_jax.workdir import lock, run
from tests.conftest import tiny_config
from tests.processes import files_of, names_in

IMAGES = np.arange(3 * 16 * 16, dtype=np.uint8).reshape(3, 16, 16, 1)


def begin(folder, config=None, images=IMAGES):
    with run.open_run(folder, config or tiny_config(), images) as opened:
        return opened


def test_a_new_run_writes_its_config_and_the_fingerprint_of_its_images(tmp_path):
    config = tiny_config()
    assert begin(tmp_path / "w", config) == tmp_path / "w"
    assert names_in(tmp_path / "w") == [".lock", "config.json", "images.json"]
    assert run.load_config(tmp_path / "w") == config
    assert json.loads((tmp_path / "w/images.json").read_text())["count"] == 3
    begin(tmp_path / "w", config)


def test_the_workdir_is_locked_while_the_run_is_open_and_not_afterwards(tmp_path):
    def try_to_open():
        with lock.hold(tmp_path):
            pass

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for opened in (
            run.open_run(tmp_path, tiny_config(), IMAGES),
            lock.hold(tmp_path),
        ):
            with opened, pytest.raises(CheckpointError, match="another process trains"):
                pool.submit(try_to_open).result()
            try_to_open()


def test_a_changed_field_is_named_and_nothing_is_written(tmp_path):
    begin(tmp_path)
    before = files_of(tmp_path)
    message = "memory.items: is 4, but the run in .* was trained with 8; choose another --workdir"
    with pytest.raises(CheckpointError, match=message):
        begin(tmp_path, tiny_config(memory__items=4))
    assert files_of(tmp_path) == before


def test_a_run_that_another_process_started_before_the_lock_was_taken_is_kept(
    tmp_path, monkeypatch
):
    hold = lock.hold

    def start_another(folder):
        monkeypatch.setattr(lock, "hold", hold)
        begin(folder, tiny_config(seed=7))
        return hold(folder)

    monkeypatch.setattr(lock, "hold", start_another)
    with pytest.raises(CheckpointError, match=r"seed: is 0, but .* trained with 7"):
        begin(tmp_path)
    assert run.load_config(tmp_path).seed == 7


def test_changeable_fields_may_change(tmp_path):
    assert set(run.CHANGEABLE_FIELDS) <= set(config_lib.field_types())
    begin(tmp_path)
    config = tiny_config(train__steps=9, train__keep_checkpoints=5, score__decision="R")
    begin(tmp_path, config)
    assert run.load_config(tmp_path) == config


def test_folders_are_stored_as_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    fields = {"root": "a [b]", "test_root": "~/c", "cache_dir": "~x", "tfds_dir": ""}
    config = tiny_config(**{f"data__{name}": path for name, path in fields.items()})
    begin(tmp_path / "w", config)
    stored = run.load_config(tmp_path / "w").data
    assert [stored.root, stored.test_root] == [f"{tmp_path}/a [b]", f"{tmp_path}/home/c"]
    assert [stored.cache_dir, stored.tfds_dir] == [f"{tmp_path}/~x", ""]
    assert config.data.root == "a [b]"


def test_other_training_images_raise(tmp_path):
    begin(tmp_path)
    changed = IMAGES.copy()
    changed[2, 15, 15, 0] ^= 1
    for images in (changed, IMAGES[:2]):
        message = f"trained on 3 other images than the {len(images)} that the config selects"
        with pytest.raises(CheckpointError, match=message):
            begin(tmp_path, images=images)


@pytest.mark.parametrize("content", ["[]", "{", "{}", "3"])
def test_a_damaged_fingerprint_is_named(tmp_path, content):
    begin(tmp_path)
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"images.json: cannot be read .*; restore it"):
        begin(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", "3", '{"seed": "x"}'])
def test_a_damaged_config_is_named(tmp_path, content):
    begin(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        begin(tmp_path)


def test_folders_that_hold_no_run_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file: is a file; give a folder"):
        begin(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"holds no run \(no config.json\)"):
        run.load_config(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "w/checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has checkpoints but no config.json"):
        begin(tmp_path / "w")


def test_find_runs_lists_the_categories_of_a_workdir(tmp_path):
    for name in ("nut", "bolt"):
        begin(tmp_path / name, tiny_config(data__category=name))
    assert run.find_runs(tmp_path) == [tmp_path / "bolt", tmp_path / "nut"]
    assert run.find_runs(tmp_path / "nut") == [tmp_path / "nut"]
    begin(tmp_path / "other", tiny_config(seed=3))
    with pytest.raises(CheckpointError, match="bolt and other differ in more than the category"):
        run.find_runs(tmp_path)
    with pytest.raises(CheckpointError, match="none: is not a folder"):
        run.find_runs(tmp_path / "none")
