import os
import socket
from pathlib import Path

import numpy as np
import pytest

from daad_jax.data import decode as decode_lib
from daad_jax.data import list_categories, load_dataset
from daad_jax.errors import BadFileError, DataError
from tests.data.test_folder import config_for, make_category, write


@pytest.fixture
def nut(tmp_path):
    return make_category(tmp_path / "root")


@pytest.fixture
def elsewhere(tmp_path):
    """A folder outside the root, with an image."""
    write(tmp_path / "elsewhere/007.png", 77)
    return tmp_path / "elsewhere"


def load(nut, **fields):
    return load_dataset(config_for(nut.parent, **fields), "nut")


def test_links_to_files_outside_the_root_are_followed_only_when_asked(nut, elsewhere):
    (nut / "train/good/999.png").symlink_to(elsewhere / "007.png")
    with pytest.raises(BadFileError, match=r"999\.png: leads out of data\.root; .*follow_links=tr"):
        load(nut)
    assert len(load(nut, on_bad_file="skip").train) == 10
    assert load(nut, follow_links=True).train.images[10, 0, 0, 0] == 77


def test_masks_are_not_taken_from_outside_the_root(nut, elsewhere):
    mask = nut / "ground_truth/bent/001_mask.png"
    mask.unlink()
    write(elsewhere / "mask.png", 255)
    mask.symlink_to(elsewhere / "mask.png")
    with pytest.raises(BadFileError, match=r"001_mask\.png: leads out of data\.root"):
        load(nut)
    dataset = load(nut, on_bad_file="skip")
    assert "test/bent/001.png" not in dataset.test.names
    assert np.asarray(load(nut, follow_links=True).test.masks[4]).all()


@pytest.mark.parametrize(
    "part", ["", "train", "train/good", "test", "test/bent", "ground_truth", "ground_truth/bent"]
)
def test_folders_outside_the_root_are_followed_only_when_asked(nut, elsewhere, part):
    (nut / part).rename(elsewhere / "moved")
    (nut / part).symlink_to(elsewhere / "moved")
    for policy in ("stop", "skip"):
        with pytest.raises(DataError, match=r"leads out of data\.root"):
            load(nut, on_bad_file=policy)
    assert len(load(nut, follow_links=True).test) == 6


def test_links_within_the_root_and_a_root_that_is_a_link_are_followed(nut, tmp_path):
    (nut / "train/good").rename(nut.parent / "pool")
    (nut / "train/good").symlink_to("../../pool")
    (tmp_path / "link").symlink_to(nut.parent)
    dataset = load_dataset(config_for(tmp_path / "link"), "nut")
    assert len(dataset.train) == 10


def test_a_category_cannot_name_a_folder_outside_the_root(nut, elsewhere):
    make_category(elsewhere)
    for category in ("../elsewhere/nut", str(elsewhere / "nut")):
        with pytest.raises(DataError, match=r"data\.category: .* leads out of data\.root"):
            load_dataset(config_for(nut.parent, category, follow_links=True), category)


def test_folders_that_lead_in_a_circle_or_nowhere_are_named(nut):
    loop = nut / "test/loop"
    loop.symlink_to(loop)
    with pytest.raises(DataError, match=r"test/loop: cannot be read \(Too many levels"):
        load(nut)
    loop.unlink()
    loop.symlink_to(".")
    with pytest.raises(DataError, match=r"test/loop: empty; put images there"):
        load(nut)
    loop.unlink()
    loop.symlink_to("nothing")
    with pytest.raises(DataError, match=r"test/loop: cannot be read \(No such file"):
        load(nut)
    loop.unlink()
    (nut / "ground_truth").rename(nut / "masks")
    (nut / "ground_truth").symlink_to("nothing")
    with pytest.raises(DataError, match=r"ground_truth: cannot be read \(No such file"):
        load(nut)


@pytest.fixture
def never_blocking(monkeypatch):
    """Fails where what is no regular file is opened, which would block."""
    read = Path.read_bytes

    def check(path):
        assert path.is_file(), f"{path} would be opened"
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", check)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket may only be short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def link_to_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_socket, link_to_device])
def test_only_regular_files_are_opened(nut, make, never_blocking):
    path = nut / "test/bent/x.png"
    make(path)
    with pytest.raises(BadFileError, match=r"x\.png: is not a regular file; move it elsewhere"):
        load(nut, follow_links=True)
    assert len(load(nut, follow_links=True, on_bad_file="skip").test) == 6
    # A file that was one when it was listed.
    with pytest.raises(BadFileError, match=r"x\.png: is not a regular file; move it elsewhere"):
        decode_lib.read_bytes(path)
    mask = nut / "ground_truth/bent/001_mask.png"
    path.unlink()
    mask.unlink()
    make(mask)
    with pytest.raises(BadFileError, match=r"001_mask\.png: is not a regular file"):
        load(nut, follow_links=True)


def test_files_too_large_for_images_are_not_read(nut, monkeypatch):
    path = nut / "train/good/000.png"
    with path.open("ab") as file:
        file.truncate(2 << 30)  # takes no room on the disk
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(BadFileError, match=r"000\.png: is too large to be an image"):
        decode_lib.read_bytes(path)


def refuse(monkeypatch, function, refused):
    original = getattr(os, function)

    def call(path=".", *arguments, **named):
        if Path(os.fsdecode(path)) == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *arguments, **named)

    monkeypatch.setattr(os, function, call)


@pytest.mark.parametrize("part", ["train/good", "test", "test/bent", "ground_truth/bent"])
def test_folders_that_cannot_be_read_are_named(nut, monkeypatch, part):
    refuse(monkeypatch, "listdir", nut / part)
    for policy in ("stop", "skip"):
        with pytest.raises(DataError, match=rf"nut/{part}: cannot be read \(Permission denied\)"):
            load(nut, on_bad_file=policy)


def test_a_folder_that_cannot_be_looked_into_is_no_category(nut, monkeypatch, capsys):
    (nut.parent / "lost+found").mkdir()
    refuse(monkeypatch, "stat", nut.parent / "lost+found/train")
    assert list_categories(config_for(nut.parent, "all")) == ["nut"]
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "lost+found/train: cannot be read (Permission denied)" in warning


def test_hidden_files_and_folders_are_passed_over(nut):
    (nut / "train/good/._000.png").write_text("hello")
    (nut / "test/bent/.DS_Store").write_text("hello")
    (nut / "test/.ipynb_checkpoints").mkdir()
    (nut.parent / ".Trash/train/good").mkdir(parents=True)
    assert len(load(nut).test) == 6
    assert list_categories(config_for(nut.parent, "all")) == ["nut"]


def test_very_long_names_are_names(nut):
    name = "x" * 251
    write(nut / f"test/bent/{name}.png")
    write(nut / f"ground_truth/bent/{name}.png", 255)
    dataset = load(nut)
    assert dataset.test.names[-1] == f"test/bent/{name}.png"
    assert np.asarray(dataset.test.masks[-1]).all()
    with pytest.raises(DataError, match="cannot be read .File name too long"):
        load_dataset(config_for(nut.parent, "y" * 300), "y" * 300)
    with pytest.raises(DataError, match=r"data\.root: .*a\\x00b is not a folder"):
        load_dataset(config_for("a\0b"), "nut")


def test_the_layout_is_checked_without_reading_an_image(nut, monkeypatch):
    os.mkfifo(nut / "test/bent/x.png")
    monkeypatch.setattr(decode_lib, "read_bytes", None)
    with pytest.raises(BadFileError, match=r"x\.png: is not a regular file"):
        list_categories(config_for(nut.parent, "all"))
    skipping = config_for(nut.parent, "all", on_bad_file="skip")
    assert list_categories(skipping) == ["nut"]
