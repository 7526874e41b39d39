"""Where the config of a command line comes from, and the workdir that it names."""

from pathlib import Path

import pytest

from daad_jax.cli.train import parse_train_flags
from daad_jax.errors import ConfigError, UserError
from tests.data.test_folder import make_category

FILE = """
from daad_jax import config

def get_config(setting="daad"):
    made = config.from_setting(setting)
    made.data.category = "nut"
    made.memory.items = 77
    return made
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """A current folder without ``configs/``."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(*flags):
    return parse_train_flags(["train", *flags])


def test_without_config_the_default_preset_is_used():
    given = parse()
    assert (given.config.data.source, given.config.setting) == ("textures", "daad_plus")
    assert given.workdir == Path("runs/default-daad_plus")


@pytest.mark.parametrize(
    ("text", "source", "setting", "workdir"),
    [
        ("digits", "digits", "daad_plus", "runs/digits-daad_plus"),
        ("digits:ae", "digits", "ae", "runs/digits-ae"),
        ("folder:daad", "folder", "daad", "runs/folder-daad"),
    ],
)
def test_a_preset_is_found_by_its_name(text, source, setting, workdir):
    given = parse(f"--config={text}", "--config.data.category=all")
    assert (given.config.data.source, given.config.setting) == (source, setting)
    assert given.workdir == Path(workdir)


def test_a_folder_named_like_a_preset_does_not_hide_it(empty_folder):
    (empty_folder / "folder").mkdir()
    assert parse("--config=folder").config.data.source == "folder"


def test_a_file_may_have_the_name_of_a_preset(empty_folder):
    (empty_folder / "folder.py").write_text(FILE)
    given = parse("--config=folder.py")
    assert (given.config.memory.items, given.config.setting) == (77, "daad")
    assert given.workdir == Path("runs/folder-daad-nut")


def test_two_files_in_one_process_are_two_configs(empty_folder):
    (empty_folder / "a.py").write_text(FILE)
    (empty_folder / "b.py").write_text(FILE.replace("77", "78"))
    assert [parse(f"--config={name}.py").config.memory.items for name in "ab"] == [77, 78]


@pytest.mark.parametrize("text", ["", "foldr", "configs/foldr.py:daad"])
def test_an_unknown_name_lists_or_suggests_presets(text):
    with pytest.raises(ConfigError, match="--config: no file or preset .*folder"):
        parse(f"--config={text}")


@pytest.mark.parametrize(
    "flags",
    [
        ["--config=digits:ae", "--config.memory.items=5", "--noconfig.model.skips"],
        ["--config.memory.items=5", "--noconfig.model.skips", "--config=digits:ae"],
        ["--config.memory.items", "5", "--config.model.skips=false", "--config", "digits:ae"],
        [
            *("--config=mnist", "--config=digits:ae", "--config.memory.items=4"),
            *("--config.memory.items=5", "--config.model.skips=False"),
        ],
    ],
)
def test_flags_may_come_in_any_order_and_the_last_one_counts(flags):
    config = parse(*flags).config
    assert (config.data.source, config.setting) == ("digits", "ae")
    assert (config.memory.items, config.model.skips) == (5, False)


def test_a_flagfile_may_hold_every_flag(empty_folder):
    (empty_folder / "flags.txt").write_text(
        "--config=digits:ae\n--workdir=here\n--config.memory.items=5\n--allow_custom_code\n"
    )
    given = parse("--flagfile=flags.txt")
    assert (given.config.data.source, given.config.setting) == ("digits", "ae")
    assert (given.config.memory.items, given.workdir) == (5, Path("here"))
    assert given.allow_custom_code


def test_a_flagfile_counts_wherever_it_stands(empty_folder):
    (empty_folder / "flags.txt").write_text("--config.memory.items=5\n--config=digits\n")
    for before in (
        ["--config.train.batch_size", "7"],
        ["--config.train.batch_size=7", "--workdir", "x"],
    ):
        given = parse(*before, "--flagfile", "flags.txt", "--noconfig.model.skips")
        assert (given.config.memory.items, given.config.data.source) == (5, "digits")
        assert (given.config.train.batch_size, given.config.model.skips) == (7, False)


def test_home_is_expanded_in_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/elsewhere")
    given = parse("--workdir=~/runs", "--config.data.root=~/parts")
    assert (given.workdir, given.config.data.root) == (Path("/elsewhere/runs"), "/elsewhere/parts")


def test_a_folder_stands_for_the_preset_folder_and_names_the_workdir(empty_folder):
    make_category(empty_folder / "my parts")
    given = parse("my parts/nut", "--config.train.steps=5")
    assert (given.config.data.source, given.config.setting) == ("folder", "daad_plus")
    assert (given.config.data.root, given.config.data.category) == ("my parts/nut", "")
    assert given.config.train.steps == 5
    assert given.workdir == Path("runs/nut")
    given = parse("--config=folder:daad", "my parts/")
    assert (given.config.data.category, given.config.setting) == ("all", "daad")
    assert given.workdir == Path("runs/my parts")
    assert parse("my parts", "--config.data.category=nut").workdir == Path("runs/my parts-nut")
    assert parse("my parts", "--workdir=w").workdir == Path("w")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a"], r"^data\.root: a is not a folder"),
        (["a", "b"], r"^b: not understood"),
        (["a", "--config.data.root=b"], r"^data\.root: the folder is given already, as 'a'"),
        (["a", "--config=mnist"], r"^--config: mnist does not take a folder such as 'a'"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_one_line(flags, message):
    with pytest.raises(UserError, match=message):
        parse(*flags)
