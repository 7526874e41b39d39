"""Which pictures the inputs of a command stand for."""

import io
import os

import pytest

from daad_jax.data.inputs import Watch, list_inputs
from daad_jax.errors import DataError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.png", "in/sub/a.JPG", "in/notes.txt", "in/.hidden.png", "in/Thumbs.db"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "in/out").mkdir()
    (tmp_path / "in/out/map.png").write_bytes(b"x")
    return tmp_path


def names(root, *inputs, listed=""):
    found = list_inputs(inputs, io.StringIO(listed), without=root / "in/out")
    return [os.path.relpath(file, root) for file in found.files], found


def test_a_folder_is_searched_without_the_output_and_hidden_files(root):
    files, found = names(root, "in")
    assert files == ["in/b.png", "in/sub/a.JPG"]
    assert (found.passed_over, [path.name for path in found.folders]) == (1, ["in"])


def test_files_globs_and_lists_are_taken_once_in_order(root):
    listed = "in/gone.png\n\nin/b.png\n"
    files, _ = names(root, "in/sub/a.JPG", "-", "in/*.png", "in/**/*.JPG", "./in", listed=listed)
    assert files == ["in/sub/a.JPG", "in/gone.png", "in/b.png"]
    assert names(root, "in/notes.txt")[0] == ["in/notes.txt"]  # it was asked for by name


def test_a_file_whose_name_looks_like_a_glob_is_that_file(root):
    (root / "in/[1].png").write_bytes(b"x")
    assert names(root, "in/[1].png")[0] == ["in/[1].png"]


@pytest.mark.parametrize("text", ["nowhere", "in/*.gif"])
def test_what_does_not_exist_is_named(root, text):
    with pytest.raises(DataError, match=r"no such file or folder; give pictures"):
        names(root, text)


def test_a_new_file_is_taken_when_its_size_stops_changing(root):
    watch = Watch([root / "in"], [str(root / "in/b.png")], without=root / "in/out")
    assert watch.poll() == []
    assert watch.poll() == [str(root / "in/sub/a.JPG")]
    new = root / "in/sub/new.png"
    for content in (b"", b"x", b"xy"):  # it is being written
        new.write_bytes(content)
        assert watch.poll() == []
    (root / "in/out/map2.png").write_bytes(b"x")
    assert watch.poll() == [str(new)]
    assert watch.poll() == []
