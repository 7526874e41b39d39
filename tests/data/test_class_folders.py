from pathlib import Path

import pytest

from daad_jax import cli
from daad_jax.data import prepared

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("category", ["T-shirt/top", "50% grey", "cat"])
def test_a_class_of_any_name_has_one_folder(make_config, tmp_path, category):
    config = make_config(source="tfds", name="fashion_mnist", category="all")
    ((own, folder),) = cli._plan(config, [category], tmp_path)
    assert own.data.category == category
    assert folder.parent == tmp_path
    assert own.data.name == config.data.name


def test_folders_of_classes_do_not_collide(make_config, tmp_path):
    config = make_config(source="tfds", category="all")
    planned = cli._plan(config, ["a/b", "a%2Fb"], tmp_path)
    assert len({folder for _, folder in planned}) == 2


def test_the_default_workdir_is_one_folder():
    argv = ["train.py", "--config.data.source=tfds", "--config.data.category=T-shirt/top"]
    _, workdir, _ = cli.parse_train_flags(argv)
    assert workdir.parts[0] == "runs"
    assert len(workdir.parts) == 2


def test_no_network_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    def refuse(request, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(prepared.urllib.request, "urlopen", refuse)
    argv = ["train.py", f"--config={CONFIGS}/mnist.py", f"--config.data.tfds_dir={tmp_path}"]
    argv += ["--config.data.category=8", f"--workdir={tmp_path / 'run'}"]
    assert cli.run(cli.train_main, argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: data.root: MNIST is not prepared yet and storage.")
    assert not (tmp_path / "run").exists()
