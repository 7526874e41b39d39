"""Labelled sets on the command line: each class has a folder of its own."""

import urllib.request

import pytest

from daad_jax import cli
from daad_jax.cli import train
from daad_jax.config import Config


def tfds_config():
    config = Config()
    config.data.source, config.data.name = "tfds", "fashion_mnist"
    return config


@pytest.mark.parametrize("category", ["T-shirt/top", "50% grey", "cat"])
def test_a_class_of_any_name_has_one_folder(tmp_path, category):
    ((own, folder),) = train.plan(tfds_config(), [category], tmp_path)
    assert own.data.category == category
    assert folder.parent == tmp_path
    assert own.data.name == "fashion_mnist"


def test_folders_of_classes_do_not_collide(tmp_path):
    planned = train.plan(tfds_config(), ["a/b", "a%2Fb"], tmp_path)
    assert len({folder for _, folder in planned}) == 2


def test_the_default_workdir_is_one_folder():
    argv = ["train", "--config.data.source=tfds", "--config.data.category=T-shirt/top"]
    workdir = train.parse_train_flags(argv).workdir
    assert workdir.parts[0] == "runs"
    assert len(workdir.parts) == 2


def test_no_network_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    def refuse(request, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    argv = ["train", "--config=mnist", f"--config.data.tfds_dir={tmp_path / 'tfds'}"]
    argv += ["--config.data.category=8", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: data.root: MNIST must be downloaded and storage.")
    assert not (tmp_path / "run").exists()
