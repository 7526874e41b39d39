"""``check`` ends with a verdict and with a command that works."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from daad_jax.cli import main
from daad_jax.cli.train import parse_train_flags
from tests.cli.test_cli import snapshot


@pytest.fixture
def part(tmp_path, monkeypatch):
    """Twenty good pictures in a flat folder with a space in its name."""
    folder = tmp_path / "my part"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(20):
        pixels = rng.integers(90, 130, (20, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_printed_command_trains_what_was_checked(part, tmp_path, capsys):
    (part / "bad file.png").write_bytes(b"")
    before = snapshot(part)
    assert main(["check", "my part", "--config.train.steps=7"]) == 0
    printed = capsys.readouterr().out
    assert "bad file.png: is empty" in printed
    assert "\nfit, but\n" in printed
    words = shlex.split(printed.splitlines()[-1])
    config = parse_train_flags(words[words.index("train") :]).config
    assert (config.data.root, config.data.category) == ("my part", "")
    assert (config.data.image_size, config.data.channels, config.train.steps) == (64, 1, 7)
    assert config.data.on_bad_file == "skip"
    assert snapshot(part) == before
    page = (tmp_path / "my part-check.html").read_text()
    assert page.count("<figure><img") >= 12
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_a_folder_that_is_not_fit_has_no_command(part, tmp_path, capsys):
    for file in sorted(part.iterdir())[5:]:
        file.unlink()
    assert main(["check", "my part", "--output=page.html"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: my part: not fit: 5 usable good pictures")
    assert captured.err.count("\n") == 1
    assert "daad_jax train" not in captured.out + (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "check: give a folder of images"),
        (["my part", "--output=my part/a.html"], "would lie among the images in"),
        (["my part", "--output=nowhere/a.html"], "the folder of nowhere/a.html does not exist"),
        (["my part", "--output=."], "--output: . is a folder"),
        (["parts"], "parts: holds 2 categories; check one at a time, for example parts/a"),
        (["empty"], "not fit: data.root: no folder with a train/good folder in it under empty"),
    ],
)
def test_what_cannot_be_checked_is_one_line(part, tmp_path, args, message, capsys):
    for name in ("parts/a/train/good", "parts/b/good", "empty"):
        (tmp_path / name).mkdir(parents=True)
    assert main(["check", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
