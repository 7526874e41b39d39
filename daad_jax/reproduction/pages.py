"""The pages of the items: Markdown and HTML."""

import datetime
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from daad_jax.errors import shown
from daad_jax.reports.document import (
    Block,
    Code,
    Document,
    Items,
    Section,
    Table,
    to_html,
    to_markdown,
)
from daad_jax.reports.grid_table import Line
from daad_jax.reproduction import answers, differences, figures, paper, tables
from daad_jax.reproduction.items import ALL, ITEMS, Run, Subject
from daad_jax.reproduction.results import Results, collect
from daad_jax.runtime.files import replacing

PAGE = "reproduction"
"""The name of the page of all items."""
_TABLES: dict[str, Callable[[Results, Sequence[Subject]], list[Block]]] = {
    "table1": tables.table1,
    "table2": tables.table2,
    "table3": tables.table3,
    "table4": tables.table4,
    "table5": tables.table5,
}


class Shown(NamedTuple):
    """An item with everything that it shows, at hand or not, and its runs."""

    item: str
    subjects: Sequence[Subject]
    runs: Sequence[Run]


class Report(NamedTuple):
    """What the pages are made from.

    `options` are the flags that a user types after the item, without the folders. `overrides` are
    the fields that the user changed. `output` is the folder of the pages and their pictures.
    """

    scale: str
    options: Sequence[str]
    overrides: Mapping[str, Any]
    lines: Sequence[Line]
    workdir: Path
    output: Path


def write(report: Report, several: Sequence[Shown]) -> list[Path]:
    """Writes the pages of each item and, of all of them, one page. Returns the Markdown files."""
    sections = {one.item: _sections(report, one) for one in several}
    written = [
        _write(report, one.item, ITEMS[one.item].title, [one], sections[one.item])
        for one in several
    ]
    if len(several) == len(ITEMS):
        together = [section for one in several for section in sections[one.item]]
        title = f"The paper's tables and figures at scale {report.scale}"
        written.append(_write(report, PAGE, title, several, together))
    return written


def _write(
    report: Report, name: str, title: str, several: Sequence[Shown], sections: Sequence[Section]
) -> Path:
    asked = ALL if name == PAGE else name
    sets = list(dict.fromkeys(one.images for shown in several for one in shown.subjects))
    differing = differences.blocks(report.scale, sets, report.overrides)
    document = Document(
        title,
        _head(report, asked, several),
        [*_ordered(sections), Section("What differs from the paper", differing)],
    )
    path = report.output / f"{name}.md"
    for file, text in [
        (path, to_markdown(document)),
        (path.with_suffix(".html"), to_html(document, report.output)),
    ]:
        with replacing(file) as partial:
            partial.write_text(text, encoding="utf-8")
    return path


def _ordered(sections: Sequence[Section]) -> list[Section]:
    """The questions first."""
    first = [one for one in sections if one.title == _QUESTIONS]
    merged = [Section(_QUESTIONS, [block for one in first for block in one.blocks])]
    others = [one for one in sections if one.title != _QUESTIONS]
    return [*(merged if first else []), *others]


_QUESTIONS = "Questions"


def _sections(report: Report, one: Shown) -> list[Section]:
    """The sections of one item."""
    results = collect(one.runs, report.lines, report.workdir)
    seed = min((run.config.seed for run in one.runs), default=0)
    if one.item in _TABLES:
        blocks = _TABLES[one.item](results, one.subjects)
    elif one.item == "figure6":
        blocks = figures.figure6(results, one.subjects, report.output, seed)
    else:
        blocks = figures.reconstructions(one.item, results, one.subjects, report.output, seed)
    found = [Section(ITEMS[one.item].title, [*blocks, *_failures(results)])]
    if one.item == "table3":
        asked = [*answers.memory(results, one.subjects), *answers.plus(results, one.subjects)]
        found.append(Section(_QUESTIONS, [*asked, *tables.brightness(results, one.subjects)]))
    if one.item == "table4":
        rates = answers.rebuilding(results, one.subjects)
        found.append(Section(_QUESTIONS, [*rates, *answers.best_rate(results, one.subjects)]))
    return found


def _failures(results: Results) -> list[Block]:
    texts = [
        f"Failed: `{subject.category}` {model} seed {seed}: {shown(message)}"
        for (subject, model, seed), message in results.errors.items()
    ]
    return [Items(texts)] if texts else []


def _head(report: Report, asked: str, several: Sequence[Shown]) -> list[Block]:
    """What has been run, by which command, where and when."""
    command = ["python", "-m", "daad_jax", "reproduce", asked, *report.options]
    rows, used = [], []
    for one in several:
        results = collect(one.runs, report.lines, report.workdir)
        seeds = sorted({run.config.seed for run in one.runs})
        absent = [
            subject for subject in one.subjects if all(subject != run.subject for run in one.runs)
        ]
        used += list(results.lines.values())
        finished = f"{len(results.lines)} of {len(one.runs)}"
        rows.append(
            [
                one.item,
                finished,
                ", ".join(map(str, seeds)),
                str(len(results.errors)),
                str(len(absent)),
            ]
        )
    header = ["", "finished runs", "seeds", "failed", "categories not on disk"]
    return [
        "Image AUROC of A, which is R without a discriminator. Ours: mean ± standard deviation "
        "over seeds. The verdict is above or below if we differ from the paper by more than that, "
        f"else within. Paper: {paper.numbers()['source']}",
        Code(f"{shlex.join(command)} --data=FOLDER --output=FOLDER"),
        f"Made on {datetime.date.today()}. {_where(used)}",
        Table(header, rows),
    ]


def _where(lines: Iterable[Line]) -> str:
    """Machines, versions, commits and the time of training."""
    unique = {line["folder"]: line for line in lines}.values()
    if not unique:
        return "Nothing has been run yet."
    machines = {
        f"{one['device']}, {one['devices']} device(s), {one['cpu_cores']} processor cores, "
        f"jax {one['jax']}"
        for one in (line["machine"] for line in unique)
    }
    commits = sorted({str(line["commit"]) for line in unique})
    hours = sum(line["cost"]["train_seconds"] for line in unique) / 3600
    return (
        f"Machine: {'; '.join(sorted(machines))}. Commit: {', '.join(commits)}. "
        f"{len(unique)} runs, {hours:.1f} hours of training."
    )
