import os
from pathlib import Path

import numpy as np
import pytest

from daad_jax.data import decode as decode_lib
from daad_jax.data import encoded, load_dataset
from daad_jax.data.sources import folder
from daad_jax.errors import BadFileError, CheckpointError, DataError
from daad_jax.workdir import run as run_lib
from tests.conftest import tiny_config
from tests.data.test_folder import config_for, make_category, write

PATHS = {"memory": {}, "mapped": {"memory_limit_mb": 0}}


@pytest.fixture
def nut(tmp_path):
    """A category of ten training images and three of each test folder, all different."""
    category = make_category(tmp_path / "root")
    for index, file in enumerate(sorted(category.glob("*/*/*.png"))):
        if "ground_truth" not in file.parts:
            write(file, 11 * index)
    return category


@pytest.fixture
def load(nut, tmp_path):
    def load(**fields):
        return load_dataset(config_for(nut.parent, **fields), "nut", tmp_path / "cache")

    return load


def skip(**fields):
    return {"on_bad_file": "skip", **fields}


def truncate(path):
    path.write_bytes(path.read_bytes()[:45])


def empty(path):
    path.write_bytes(b"")


def disguise(path):
    path.write_text("hello")


def link_in_circle(path):
    path.unlink()
    path.symlink_to(path)


def link_to_nothing(path):
    path.unlink()
    path.symlink_to("nothing.png")


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    truncate: "is not a whole image file",
    empty: "is empty",
    disguise: "is not a whole image file",
    link_in_circle: "cannot be read",
    link_to_nothing: "cannot be read",
    make_pipe: "is not a regular file",
}


def assert_is_without(dataset, whole, train=(), test=()):
    """The set is the whole one without the images at these places."""
    for part, missing in {"train": train, "test": test}.items():
        one, other = getattr(dataset, part), getattr(whole, part)
        kept = [index for index in range(len(other)) if index not in missing]
        np.testing.assert_array_equal(one.images, other.images[kept])
        assert one.names == [other.names[index] for index in kept]
        assert one.kinds == [other.kinds[index] for index in kept]
        if other.masks is None:
            assert one.masks is None
        else:
            np.testing.assert_array_equal(one.masks, [other.masks[index] for index in kept])
    assert dataset.left_out == len(train) + len(test)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_stops_or_is_left_out(load, nut, damage, path, capsys):
    whole = load()
    capsys.readouterr()
    damage(nut / "train/good/003.png")
    damage(nut / "test/good/001.png")
    with pytest.raises(BadFileError, match=rf"nut/train/good/003\.png: {DAMAGE[damage]}"):
        load(**PATHS[path])
    assert capsys.readouterr().err == ""
    assert_is_without(load(**skip(), **PATHS[path]), whole, train=[3], test=[1])
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("warning: ") for line in lines] == [True] * 3
    assert "nut: 2 file(s) cannot be used" in lines[0]
    assert "003.png: " in "".join(lines[1:])
    assert DAMAGE[damage] in lines[1]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("damage", [Path.unlink, *DAMAGE])
def test_a_bad_mask_takes_its_image_along(load, nut, damage, path):
    whole = load()
    damage(nut / "ground_truth/bent/001_mask.png")
    truncate(nut / "test/bent/002.png")
    with pytest.raises(BadFileError, match=r"ground_truth/bent/001_mask\.png: "):
        load(**PATHS[path])
    assert_is_without(load(**skip(), **PATHS[path]), whole, test=[4, 5])


def test_unreadable_and_foreign_files_are_left_out(load, nut, monkeypatch):
    whole = load()
    (nut / "train/good/notes.txt").write_text("hello")
    read = Path.read_bytes

    def refuse(path):
        if path.name == "003.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    dataset = load(**skip())
    assert dataset.left_out == 2
    assert len(dataset.train) == len(whole.train) - 1
    (nut / "train/good/notes.txt").unlink()
    with pytest.raises(BadFileError, match=r"003\.png: cannot be read \(Permission denied\); rest"):
        load()


@pytest.mark.parametrize("path", PATHS)
def test_files_that_vanish_after_they_were_listed_are_left_out(load, nut, monkeypatch, path):
    whole = load()
    original = folder.load_normal

    def load_later(*arguments):
        (nut / "test/bent/001.png").unlink(missing_ok=True)
        return original(*arguments)

    monkeypatch.setattr(folder, "load_normal", load_later)
    assert_is_without(load(**skip(), **PATHS[path]), whole, test=[4])


def test_an_entry_of_the_cache_remembers_what_is_not_in_it(load, nut, monkeypatch, capsys):
    whole = load()
    truncate(nut / "train/good/003.png")
    capsys.readouterr()
    load(**skip(), **PATHS["mapped"])
    first = capsys.readouterr().err
    monkeypatch.setattr(decode_lib, "decode_image", None)  # nothing is decoded again
    dataset = load(**skip(), **PATHS["mapped"])
    assert isinstance(dataset.train.images, np.memmap)
    assert_is_without(dataset, whole, train=[3])
    assert capsys.readouterr().err == first
    with pytest.raises(BadFileError, match=r"003\.png: is not a whole image file"):
        load(**PATHS["mapped"])
    with pytest.raises(DataError, match=r"data.max_bad_files: 1 files"):
        load(**skip(max_bad_files=0), **PATHS["mapped"])


def test_an_entry_without_what_it_should_remember_is_made_again(load, nut, tmp_path):
    whole = load()
    truncate(nut / "train/good/003.png")
    load(**skip(), **PATHS["mapped"])
    for entry in (tmp_path / "cache").iterdir():
        content = entry.read_bytes()
        entry.write_bytes(content[: content.rfind(b"[[")] if b"[[" in content else content)
    assert_is_without(load(**skip(), **PATHS["mapped"]), whole, train=[3])
    for entry in (tmp_path / "cache").iterdir():
        entry.write_bytes(entry.read_bytes() + b"7")
    assert_is_without(load(**skip(), **PATHS["mapped"]), whole, train=[3])


@pytest.mark.parametrize("change", [lambda path: write(path, 1), Path.unlink])
def test_an_entry_never_holds_other_pixels_than_its_key_says(load, nut, monkeypatch, change):
    original = encoded._key
    monkeypatch.setattr(encoded, "_key", lambda *arguments: calls.append(1) or original(*arguments))
    calls, read = [], decode_lib.read_bytes

    def change_in_between(path):
        if calls and path.name == "004.png":
            change(path)
        return read(path)

    monkeypatch.setattr(decode_lib, "read_bytes", change_in_between)
    with pytest.raises(DataError, match=r"004\.png: changed while the images were read; start"):
        load(**skip(), **PATHS["mapped"])


@pytest.mark.parametrize("path", PATHS)
def test_more_bad_files_than_allowed_are_one_error(load, nut, path):
    for index in (2, 5, 7):
        empty(nut / f"train/good/{index:03d}.png")
    assert load(**skip(max_bad_files=3), **PATHS[path]).left_out == 3
    message = r"^data.max_bad_files: 3 files cannot be used so far, more than 2; .*002\.png: is e"
    with pytest.raises(DataError, match=message):
        load(**skip(max_bad_files=2), **PATHS[path])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["good", "bent"])
def test_no_usable_test_image_of_one_label_is_a_warning(load, nut, kind, path, capsys):
    for file in (nut / "test" / kind).iterdir():
        empty(file)
    assert len(load(**skip(), **PATHS[path]).test) == 3
    missing = {"good": "normal", "bent": "defective"}[kind]
    assert f"warning: nut: no {missing} test image in " in capsys.readouterr().err


@pytest.mark.parametrize("path", PATHS)
def test_no_usable_training_image_is_an_error(load, nut, path):
    for file in (nut / "train/good").iterdir():
        disguise(file)
    with pytest.raises(DataError, match="no training image of 'nut' can be used"):
        load(**skip(), **PATHS[path])


def test_many_bad_files_are_counted_and_a_few_named(load, nut, capsys):
    for index in range(7):
        empty(nut / f"train/good/{index:03d}.png")
    load(**skip())
    lines = capsys.readouterr().err.splitlines()
    assert "nut: 7 file(s)" in lines[0]
    assert [line.count(": is empty") for line in lines] == [0, 1, 1, 1, 1, 1, 0]
    assert lines[-1] == "warning: … and 2 more"


def test_messages_are_one_line_whatever_the_name(load, nut, capsys):
    names = [b"a\nb\r.png", b"\xff\xfe.png", "\u2028\u202e.png".encode()]
    for name in names:
        (nut / "train/good" / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(BadFileError) as error:
        load()
    assert len(str(error.value).splitlines()) == 1
    load(**skip())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[1].endswith("a\\nb\\r.png: is empty; replace or remove it")


def start_run(folder, data_config, images):
    config = tiny_config()
    config.data = data_config
    with run_lib.open_run(folder, config, images):
        return config


def test_a_resume_is_refused_if_training_images_changed(load, nut, tmp_path):
    folder = tmp_path / "run"
    start_run(folder, config_for(nut.parent), load().train.images)
    run_lib.check_same_images(folder, load().train.images)
    write(nut / "train/good/002.png", 1)
    for path in PATHS.values():
        with pytest.raises(CheckpointError, match="was trained on 10 other images than the 10"):
            run_lib.check_same_images(folder, load(**path).train.images)
    empty(nut / "train/good/002.png")
    with pytest.raises(CheckpointError, match="was trained on 10 other images than the 9"):
        run_lib.check_same_images(folder, load(**skip()).train.images)


def test_a_test_image_may_be_left_out_on_resume(load, nut, tmp_path):
    folder = tmp_path / "run"
    config = start_run(folder, config_for(nut.parent), load().train.images)
    empty(nut / "test/bent/002.png")
    config.data.on_bad_file = "skip"
    run_lib.check_same_run(folder, config)
    run_lib.check_same_images(folder, load(**skip()).train.images)
