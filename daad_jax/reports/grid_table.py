"""The results file of a grid of runs, and a Markdown table of its lines."""

import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from daad_jax.config import Config, flatten, to_dict
from daad_jax.errors import ConfigError, suggestion, warn
from daad_jax.reports.document import markdown_table

Line = dict[str, Any]
Group = tuple[str, ...]

LABELS = ("category", "setting", "variant", "commit")
_MISSING = "-"
_DEFAULTS = flatten(to_dict(Config()))
_OWN_NUMBERS = ("pixel", "minutes")


def read_lines(path: Path) -> list[Line]:
    """Reads a results file. Lines that cannot be read are left out with a warning.

    Raises OSError if the file cannot be read.
    """
    lines, cut_off = parse_lines(path)
    warn_cut_off(path, cut_off)
    return lines


def parse_lines(path: Path) -> tuple[list[Line], int]:
    """Reads a results file. Returns its lines, and how many of them cannot be read.

    Raises OSError if the file cannot be read.
    """
    texts = path.read_bytes().decode("utf-8", "replace").split("\n")
    texts = [text for text in texts if text.strip()]
    lines = [line for text in texts if (line := _parse(text)) is not None]
    return lines, len(texts) - len(lines)


def warn_cut_off(path: Path, count: int) -> None:
    """Warns of lines that could not be read, if there are any."""
    if count:
        warn(f"{path}: {count} cut-off line(s) left out")


def append(path: Path, line: Line) -> None:
    """Appends a line in one write. After a line that was cut off it starts a new one.

    Raises OSError if the file cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + json.dumps(line).encode() + b"\n")
        os.fsync(file.fileno())


def config_key(config: dict[str, Any]) -> str:
    """Returns text which is the same for equal configs. Missing fields have their defaults."""
    return json.dumps(_DEFAULTS | flatten(config), sort_keys=True)


def latest(lines: Iterable[Line], *, by_commit: bool = False) -> list[Line]:
    """Returns the last line of each config, with the configs in the order of their first lines.

    `by_commit` says whether equal configs at different commits count as different.
    """
    newest: dict[tuple[str, str], Line] = {}
    for line in lines:
        commit = str(line.get("commit")) if by_commit else ""
        newest[config_key(line["config"]), commit] = line
    return list(newest.values())


def render(
    lines: Sequence[Line],
    rows: Sequence[str],
    numbers: Sequence[str] | None = None,
    against: str | None = None,
) -> str:
    """Renders lines as a Markdown table with one row per group of runs.

    Args:
        lines: what `read_lines` returned, at least one; only the last of each config counts.
        rows: fields that identify a row: from `LABELS`, or a config field's dotted path.
        numbers: scores, controls, ``pixel``, ``minutes`` or dotted paths into an evaluation; by
            default all scores, ``pixel`` and ``pca``.
        against: a value of the last row field; each number then gets a column of mean differences
            to that row, over runs with the same seed and the same other row fields.

    Returns:
        GitHub Markdown: numbers are ``mean ± sample standard deviation`` over seeds, differences
        are followed by the number of pairs.

    Raises:
        ConfigError: for an unknown row field, number or label, or two runs of one seed in a row.
    """
    lines = latest(lines, by_commit="commit" in rows)
    _check_rows(lines, rows)
    done = [line for line in lines if "evaluation" in line]
    if numbers is None:
        numbers = _default_numbers(done)
    _check_numbers(done, numbers)
    groups: dict[Group, dict[int, Line]] = {_group(line, rows): {} for line in lines}
    for line in done:
        _add(groups[_group(line, rows)], line, rows)
    if against is not None and against not in [group[-1] for group in groups]:
        labels = ", ".join(repr(label) for label in dict.fromkeys(group[-1] for group in groups))
        raise ConfigError(f"--against: no {rows[-1]} {against!r}; known: {labels}")
    failed = [_group(line, rows) for line in lines if "evaluation" not in line]
    table = [[*rows, "seeds", *(["failed"] if failed else [])]]
    for name in numbers:
        table[0] += [name] if against is None else [name, f"Δ {name}"]
    for group, runs in groups.items():
        cells = [*(value or '""' for value in group), str(len(runs))]
        cells += [str(failed.count(group))] if failed else []
        for name in numbers:
            values = _values(runs, name)
            cells.append(_spread(list(values.values())))
            if against is not None:
                base = _values(groups.get((*group[:-1], against), {}), name)
                cells.append(_MISSING if group[-1] == against else _difference(values, base))
        table.append(cells)
    return markdown_table(table[0], table[1:], labels=len(rows))


def _default_numbers(done: Sequence[Line]) -> list[str]:
    scores = dict.fromkeys(name for line in done for name in line["evaluation"]["scores"])
    known = [*scores, "pixel", "pca"]
    return [one for one in known if not done or any(_holds(line, one) for line in done)]


def _parse(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("config"), dict):
        return None
    finished = {"evaluation", "cost", "seed"} <= line.keys()
    return line if finished or "error" in line else None


def _check_rows(lines: Sequence[Line], rows: Sequence[str]) -> None:
    if not rows:
        raise ConfigError("--rows: give at least one field")
    known = [*LABELS, *dict.fromkeys(name for line in lines for name in flatten(line["config"]))]
    for name in rows:
        if name not in known:
            raise ConfigError(f"--rows: no field {name!r}; {suggestion(name, known)}")


def _check_numbers(done: Sequence[Line], numbers: Sequence[str]) -> None:
    for name in numbers:
        if done and not any(_holds(line, name) for line in done):
            named = [(line["evaluation"], part) for line in done for part in ("scores", "controls")]
            known = dict.fromkeys(key for evaluation, part in named for key in evaluation[part])
            raise ConfigError(
                f"--numbers: no number {name!r}; known: {', '.join([*known, *_OWN_NUMBERS])}, or a "
                "dotted path into the evaluation such as scores.A.average_precision"
            )


def _holds(line: Line, name: str) -> bool:
    try:
        value = _look_up(line, name)
    except KeyError:
        return False
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _look_up(line: Line, name: str) -> Any:
    """The number of that name in an evaluated line. Raises KeyError if it has none."""
    evaluation = line["evaluation"]
    if name == "minutes":
        # The time of a resumed run does not cover all steps.
        return None if line["cost"]["first_step"] else line["cost"]["train_seconds"] / 60
    if name == "pixel":
        return evaluation["pixel_auroc"]
    for part in ("scores", "controls"):
        if name in evaluation[part]:
            return evaluation[part][name].get("image_auroc")
    value = evaluation
    for key in name.split("."):
        if not isinstance(value, dict):
            raise KeyError(name)
        value = value[key]
    return value


def _group(line: Line, rows: Sequence[str]) -> Group:
    flat = flatten(line["config"])
    values = [line.get(name) if name in LABELS else flat.get(name) for name in rows]
    return tuple(value if isinstance(value, str) else json.dumps(value) for value in values)


def _add(runs: dict[int, Line], line: Line, rows: Sequence[str]) -> None:
    """Adds a run to its row. Raises ConfigError if the row has another run of that seed."""
    other = runs.setdefault(line["seed"], line)
    if other is not line:
        new, old = flatten(line["config"]), flatten(other["config"])
        differing = [name for name in new if new[name] != old.get(name)]
        raise ConfigError(
            f"--rows: two runs of seed {line['seed']} in the row {', '.join(_group(line, rows))} "
            f"differ in {', '.join(differing)}; add that to --rows"
        )


def _values(runs: dict[int, Line], name: str) -> dict[int, float]:
    """The number of each run that has it, by seed."""
    held = {seed: _look_up(line, name) for seed, line in runs.items() if _holds(line, name)}
    return {seed: value for seed, value in held.items() if value is not None}


def _spread(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return _MISSING
    mean = f"{math.fsum(values) / len(values):{sign}.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def _difference(values: dict[int, float], base: dict[int, float]) -> str:
    pairs = [value - base[seed] for seed, value in values.items() if seed in base]
    return f"{_spread(pairs, '+')} (n={len(pairs)})" if pairs else _MISSING
