"""Rules for the package as a whole: layers, sizes, equations, imports."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import daad_jax
from daad_jax.config import reference

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "daad_jax"

# A module imports only from its own folder and from those before it in this list.
LAYERS = (
    *("errors", "exported", "config", "runtime", "addressing", "models", "data", "workdir"),
    *("train", "scoring", "evaluation", "reports", "serve", "api", "reproduction", "cli"),
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_TOP_LEVEL_MODULES = 8


def source_files():
    return sorted(PACKAGE.rglob("*.py"))


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def layer_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def upward_imports(path):
    own = LAYERS.index(layer_of(path))
    for name in imported_names(path):
        layer = name.split(".")[1] if name.startswith("daad_jax.") else None
        if layer in LAYERS and LAYERS.index(layer) > own:
            yield name


def test_every_folder_is_a_layer():
    entries = {layer_of(path) for path in source_files()}
    assert entries == {*LAYERS, "__init__", "__main__"}


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_lower_layers(path):
    if layer_of(path) not in ("__init__", "__main__"):
        assert list(upward_imports(path)) == []


def test_few_modules_directly_in_the_package():
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_TOP_LEVEL_MODULES


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, node.name


def public_docstrings():
    names = [info.name for info in pkgutil.walk_packages(daad_jax.__path__, "daad_jax.")]
    for module in map(importlib.import_module, (n for n in names if not n.endswith("__main__"))):
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


def test_each_equation_is_in_exactly_one_public_docstring():
    where = {number: [] for number in range(1, 8)}
    for name, text in public_docstrings():
        for number in re.findall(r"Eq\. \((\d+)\)", text):
            where[int(number)].append(name)
    assert {number: len(names) for number, names in where.items()} == dict.fromkeys(range(1, 8), 1)
    assert where[2] == ["daad_jax.addressing.read.read"]


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("orbax", "workdir/checkpoint.py"),
        ("matplotlib", "reports/plots.py"),
        ("tensorboardX", "workdir/tensorboard.py"),
        ("ml_collections", "cli/flags.py"),
    ],
)
def test_only_one_file_imports(package, file):
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in source_files()
        if any(name.split(".")[0] == package for name in imported_names(path))
    }
    assert users == {file}


@pytest.mark.parametrize("folder", ["config", "addressing", "data"])
def test_these_folders_do_not_import_flax(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        assert not any(name.split(".")[0] == "flax" for name in imported_names(path))


@pytest.mark.parametrize("file", ["train/losses.py", "train/step.py", "scoring/scores.py"])
def test_these_files_do_not_import_flax(file):
    assert not any(name.split(".")[0] == "flax" for name in imported_names(PACKAGE / file))


def test_importing_the_package_imports_no_heavy_library():
    code = "import daad_jax, sys; print([m for m in ('jax', 'flax', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("name", daad_jax.__all__)
def test_public_names_can_be_imported(name):
    assert getattr(daad_jax, name).__doc__


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = daad_jax.nothing


def test_the_configuration_page_is_generated_from_the_code():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference.render(), "run python -m daad_jax.config.reference"
