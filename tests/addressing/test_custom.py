"""A rule outside the package: trained, evaluated, held to the contract, and never run unasked."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import daad_jax
from daad_jax import addressing, checkpoint, cli
from daad_jax import config as config_lib
from daad_jax.addressing import contract, custom
from daad_jax.errors import ConfigError
from daad_jax.evaluation import evaluate
from daad_jax.state import build_networks
from daad_jax.training import train
from tests.conftest import tiny_config, tiny_dataset

KEY = jax.random.key(0)
ROOT = Path(__file__).parent.parent.parent
MODULE = '''
import pathlib
pathlib.Path(__file__).with_suffix(".imported").touch()

import jax
import jax.numpy as jnp

def sharpest(similarities):
    """The softmax of the similarities, squared and scaled to sum to one."""
    weights = jax.nn.softmax(similarities) ** 2
    return weights / jnp.sum(weights)

number = 3
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module `own_rules` that leaves a file behind when it is imported."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own_rules.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "own_rules", raising=False)
    monkeypatch.setattr(custom, "_LOADED", {})
    return folder


def imported(folder):
    return (folder / "own_rules.imported").exists()


def own_config():
    return tiny_config("daad", memory__addressing="own_rules:sharpest", train__steps=2)


def test_a_rule_outside_the_package_trains_evaluates_and_is_checked(module, tmp_path, one_device):
    config = own_config()
    config_lib.validate(config)
    assert not imported(module)
    addressing.permit(config.memory.addressing, allowed=True)
    dataset = tiny_dataset(config)
    train(config, dataset, tmp_path / "run", mesh=one_device, log=lambda _: None)
    evaluation = evaluate(tmp_path / "run", dataset, mesh=one_device)
    assert 0 <= evaluation.summary["scores"]["R"]["image_auroc"] <= 1
    contract.check(addressing.get_rule("own_rules:sharpest"))
    queries, items = contract.bank()
    answer = contract.read(addressing.get_rule("own_rules:sharpest"), queries[0], items)
    assert abs(float(jnp.sum(answer.weights)) - 1) < 1e-5


def test_a_workdir_that_names_code_runs_none_of_it_unasked(module, tmp_path, one_device, capsys):
    config, workdir = own_config(), tmp_path / "run"
    addressing.permit(config.memory.addressing, allowed=True)
    train(config, tiny_dataset(config), workdir, mesh=one_device, log=lambda _: None)
    (module / "own_rules.imported").unlink()
    sys.modules.pop("own_rules")
    custom._LOADED.clear()
    assert checkpoint.load_config(workdir) == config
    with pytest.raises(ConfigError, match="not run unasked.*allow_custom_code=True"):
        daad_jax.load(workdir)
    for main, argv in (
        (cli.eval_main, ["eval.py", f"--workdir={workdir}"]),
        (
            cli.train_main,
            ["train.py", f"--workdir={workdir}", "--config.memory.addressing=own_rules:sharpest"],
        ),
    ):
        assert cli.run(main, argv) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "--allow_custom_code" in line
    with pytest.raises(ConfigError, match="not run unasked"):
        evaluate(workdir, tiny_dataset(config))
    assert not imported(module)
    daad_jax.load(workdir, allow_custom_code=True)
    assert imported(module)


def test_the_refusal_holds_after_the_code_was_imported_once(module, tmp_path, one_device):
    config, workdir = own_config(), tmp_path / "run"
    addressing.permit(config.memory.addressing, allowed=True)
    train(config, tiny_dataset(config), workdir, mesh=one_device, log=lambda _: None)
    with pytest.raises(ConfigError, match="not run unasked"):
        daad_jax.load(workdir)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_rules:", "is not module:function"),
        ("../own_rules:sharpest", "is not module:function"),
        ("a b:c", "is not module:function"),
        ("own_rules:sharpest:more", "is not module:function"),
        ("own_rules:sharpest()", "is not module:function"),
        ("nowhere_at_all:sharpest", "importing nowhere_at_all failed"),
        ("own_rules:sharper", "own_rules has no function or Rule sharper"),
        ("own_rules:number", "own_rules has no function or Rule number"),
    ],
)
def test_what_cannot_be_imported_is_one_line(module, name, message):
    with pytest.raises(ConfigError, match=message):
        addressing.permit(name, allowed=True)


def test_the_workdir_is_not_where_a_module_comes_from(tmp_path):
    workdir = tmp_path / "run"
    for folder in (tmp_path, workdir):
        folder.mkdir(exist_ok=True)
        (folder / "own_rules.py").write_text(MODULE)
    flags = ["--allow_custom_code", "--config.memory.addressing=own_rules:sharpest"]
    flags += ["--workdir=run", "--config.data.source=mvtec", "--config.data.root=nowhere"]
    result = subprocess.run(
        [sys.executable, ROOT / "train.py", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "importing own_rules failed" in result.stderr
    assert not list(tmp_path.rglob("*.imported"))


def weighed(request):
    weights = jax.nn.softmax(request.compare(request.query, request.items))
    return addressing.Answer(weights @ request.items, weights)


def needs_noise(request):
    noisy = request.query + jax.random.normal(request.key, request.query.shape)
    return weighed(request._replace(query=noisy))


WRONG = {
    "a read gives a block": lambda s: jnp.zeros((3, len(s))),
    "a read fails: TypeError: dot_general": lambda s: s[:3],
    "a read fails: TypeError: .*argument": lambda one, two: one,
    "a read fails: .*bool": lambda s: s if s[0] > 0 else 0 * s,
    "a read fails: AttributeError": lambda hyper: addressing.RULES["top_k"](hyper),
    "a read fails: .*key": addressing.Rule(needs_noise, needs_key=True),
    "the loss 'entropy' is also what a diagnostic is called": addressing.Rule(
        weighed, losses=lambda reads: {"entropy": jnp.mean(reads.queries)}
    ),
    r"the loss 'mine' has shape \(1,\)": addressing.Rule(
        weighed, losses=lambda reads: {"mine": jnp.mean(reads.queries, axis=1)}
    ),
    "update changes the names, shapes or dtypes": addressing.Rule(
        weighed,
        init_state=lambda items: {"count": jnp.zeros(())},
        update=lambda state, reads: {"count": jnp.zeros(3)},
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_rule_of_other_shapes_is_one_line_before_the_run(message, monkeypatch):
    monkeypatch.setattr(custom, "_LOADED", {"own:rule": addressing.as_rule(WRONG[message])})
    config = tiny_config("daad", memory__addressing="own:rule")
    with pytest.raises(
        ConfigError, match=f"memory.addressing: own:rule: with 8 items of 64 values {message}"
    ):
        config_lib.memory_specs(config)
    with pytest.raises(AssertionError):
        contract.check(WRONG[message])


def test_a_rule_that_moves_its_items_is_not_frozen(monkeypatch):
    mover = addressing.Rule(weighed, init_state=lambda items: {"memory_items": items[:8]})
    monkeypatch.setattr(custom, "_LOADED", {"own:rule": mover})
    config = tiny_config("daad", memory__addressing="own:rule")
    config_lib.memory_specs(config)
    config.memory.frozen = True
    with pytest.raises(ConfigError, match="memory.frozen: own:rule moves the items"):
        config_lib.memory_specs(config)


def test_the_state_of_a_rule_is_made_of_the_banks_own_shape(monkeypatch):
    rule = addressing.Rule(
        weighed, init_state=lambda items: {"top": jax.lax.top_k(items.sum(-1), 4)[0]}
    )
    monkeypatch.setattr(custom, "_LOADED", {"own:rule": rule})
    networks = build_networks(tiny_config("daad", memory__addressing="own:rule"))
    images = jnp.zeros((2, 16, 16, 1))
    made = jax.eval_shape(functools.partial(networks.generator.init, train=True), KEY, images)
    assert made["memory"]["memory_1"]["state"]["top"].shape == (4,)


def test_rules_of_the_package_need_no_permission():
    addressing.permit("threshold", allowed=False)


def test_the_flag_of_train_py_is_understood(module, tmp_path):
    code = (
        "import sys; from daad_jax import cli, training\n"
        "training.train = lambda *_, **__: sys.exit(7)\n"
        "cli.run(cli.train_main, sys.argv)"
    )
    flags = ["--allow_custom_code", "--config.memory.addressing=own_rules:sharpest"]
    command = [sys.executable, "-c", code, *flags, f"--workdir={tmp_path / 'run'}"]
    path = os.pathsep.join([str(module), *sys.path])
    result = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 7, result.stderr
    assert imported(module)
