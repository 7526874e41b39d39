"""Renders the reference of every config field: ``python -m daad_jax.config_reference``."""

import dataclasses
import inspect
import re
from typing import Any

from daad_jax.config import SETTINGS, Config

_HEADER = """# Configuration

Every field, its type, its default (the paper's setting, `configs/mvtec.py`) and its meaning. Set
one on the command line with `--config.<field>=<value>`; tuples are quoted:
`--config.model.widths='(32,64)'`. An unknown field or a value that cannot work is refused in one
line. This page is made by `python -m daad_jax.config_reference`.
"""


def render() -> str:
    """Returns the reference as Markdown: the settings, then a table for each section."""
    parts = [_HEADER, _settings(), _section("", Config)]
    parts += [
        _section(f"{entry.name}.", entry.type)
        for entry in dataclasses.fields(Config)
        if dataclasses.is_dataclass(entry.type)
    ]
    return "\n".join(parts)


def _settings() -> str:
    lines = ["## Settings", "", "What each setting changes in `daad_plus`.", ""]
    lines += ["| setting | changes |", "|---|---|"]
    for name, changes in SETTINGS.items():
        shown = ", ".join(f"`{field}={value!r}`" for field, value in changes.items())
        lines.append(f"| `{name}` | {shown or 'nothing'} |")
    return "\n".join([*lines, ""])


def _section(prefix: str, section: Any) -> str:
    documented = _attributes(section)
    title = f"## `{prefix.removesuffix('.')}`" if prefix else "## Top level"
    lines = [title, "", "| field | type | default | meaning |", "|---|---|---|---|"]
    for entry in dataclasses.fields(section):
        if dataclasses.is_dataclass(entry.type):
            continue
        meaning = documented[entry.name].replace("|", "\\|")
        lines.append(
            f"| `{prefix}{entry.name}` | {_type(entry.type)} | `{entry.default!r}` | {meaning} |"
        )
    return "\n".join([*lines, ""])


def _attributes(section: Any) -> dict[str, str]:
    """Field descriptions from the ``Attributes`` part of a docstring."""
    text = inspect.getdoc(section) or ""
    _, _, listed = text.partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", listed, re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in entries}


def _type(annotation: object) -> str:
    if isinstance(annotation, type) and annotation is not object:
        name = annotation.__name__ if annotation.__module__ == "builtins" else str(annotation)
        return name if "[" not in str(annotation) else str(annotation)
    if annotation is object:
        return "str or tuple"
    return str(annotation).replace("typing.", "")


if __name__ == "__main__":
    print(render(), end="")
