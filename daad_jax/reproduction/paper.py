"""The numbers that the paper prints, from ``paper.json``."""

import functools
import importlib.resources
import json
from typing import Any

MEAN = "mean"
OURS = "Ours"


@functools.cache
def numbers() -> dict[str, Any]:
    """The tables as the paper prints them: text, so that 0.89 stays 0.89. None is not printed."""
    file = importlib.resources.files("daad_jax.reproduction") / "paper.json"
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def table3(category: str, model: str) -> str | None:
    """The AUROC of a setting in Table 3, None where the table has no such row or column.

    `category` is one of MVTec AD, or "mean".
    """
    table = numbers()["table3"]
    if category not in table["rows"] or model not in table["columns"]:
        return None
    text: str = table["rows"][category][table["columns"].index(model)]
    return text


def table2(images: str) -> str:
    """The AUROC of DAAD+ on "mnist" or "cifar10", a mean over ten classes."""
    table = numbers()["table2"]
    text: str = table["methods"][OURS][table["columns"].index(images)]
    return text
