"""What `train` and `evaluate` print and write for people: tables and HTML reports."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from daad_jax.data import Dataset, display_name
from daad_jax.errors import warn
from daad_jax.evaluation.evaluate import Evaluation
from daad_jax.reports import html, text
from daad_jax.runtime import signals


def show_evaluation(folder: Path, evaluation: Evaluation, dataset: Dataset) -> None:
    """Prints the table of one run and writes its HTML report."""
    print(text.evaluation_table(evaluation.summary))
    _write(lambda: html.write_report(folder, evaluation, dataset))


def show_summary(
    workdir: Path, folders: Sequence[Path], summaries: Sequence[dict[str, Any]]
) -> None:
    """Prints a table of several categories and writes its HTML report. Does nothing for one."""
    if len(summaries) > 1:
        print(text.summary_table(summaries))
        names = [folder.name for folder in folders]
        _write(lambda: html.write_summary(workdir, list(summaries), names))


def _write(write: Callable[[], Path]) -> None:
    """Writes a report. A failure is only a warning, because more categories may follow."""
    try:
        with signals.interruptible():
            print(f"report: {display_name(write())}", end="\n\n", flush=True)
    except Exception as error:
        warn(f"{html.REPORT_FILE} could not be written: {error!r}")
