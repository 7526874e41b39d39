"""What holds for the package as a whole: equations, imports, names of paths."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import daad_jax
from daad_jax import config_reference

ROOT = Path(__file__).parent.parent

# Data flows one way; a module never imports one of a later group.
ORDER = [
    ["errors"],
    ["files", "host_memory", "interruption"],
    ["allocator", "compiling", "lock", "manifest", "watch"],
    ["partition", "addressing", "layers"],
    ["memory", "losses"],
    ["generator", "discriminator"],
    ["config"],
    ["config_reference"],
    ["data"],
    ["sharding"],
    ["processes"],
    ["state"],
    ["step"],
    ["program"],
    ["feed"],
    ["checkpoint"],
    ["logs", "tensorboard"],
    ["training"],
    ["metrics"],
    ["controls", "scores"],
    ["scoring"],
    ["diagnostics"],
    ["evaluation"],
    ["report"],
    ["page", "plots"],
    ["memory_report"],
    ["html_report"],
    ["cli"],
    ["grid_table"],
    ["grid"],
]


def modules():
    names = [info.name for info in pkgutil.walk_packages(daad_jax.__path__, "daad_jax.")]
    return [importlib.import_module(name) for name in names]


def public_docstrings():
    for module in modules():
        yield module.__name__, module.__doc__ or ""
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{module.__name__}.{name}", value.__doc__ or ""
                if inspect.isclass(value):
                    for method, function in vars(value).items():
                        if not method.startswith("_") and inspect.isfunction(function):
                            yield f"{module.__name__}.{name}.{method}", function.__doc__ or ""


def test_each_equation_stands_in_exactly_one_public_docstring():
    where = {number: [] for number in range(1, 8)}
    for name, text in public_docstrings():
        for number in re.findall(r"Eq\. \((\d+)\)", text):
            where[int(number)].append(name)
    assert {number: len(names) for number, names in where.items()} == dict.fromkeys(range(1, 8), 1)
    assert where[1] == ["daad_jax.addressing.dense.softmax"]
    assert where[2] == ["daad_jax.memory.read"]
    assert where[7] == ["daad_jax.scores.anomaly_score"]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(dotted):
    return dotted.split(".")[1]


def test_modules_import_only_what_stands_before_them():
    rank = {name: index for index, group in enumerate(ORDER) for name in group}
    for path in (ROOT / "daad_jax").rglob("*.py"):
        own = path.relative_to(ROOT / "daad_jax").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imports(path):
            if name.startswith("daad_jax.") and room(name) != own:
                assert rank[room(name)] < rank[own], f"{path.name} imports {name}"


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("orbax", "checkpoint.py"),
        ("matplotlib", "plots.py"),
        ("tensorboardX", "tensorboard.py"),
        ("ml_collections", "cli.py"),
    ],
)
def test_only_one_file_imports(package, file):
    users = {
        path.name
        for path in (ROOT / "daad_jax").rglob("*.py")
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users == {file}


def test_the_configuration_page_is_made_from_the_code():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == config_reference.render(), "run python -m daad_jax.config_reference"


def test_pure_parts_do_not_know_flax():
    for name in ("partition", "addressing", "losses", "scores", "metrics", "step"):
        folder = ROOT / "daad_jax" / name
        files = folder.glob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
        for path in files:
            assert not any(used.split(".")[0] == "flax" for used in imports(path))
