"""Lines in a log, and a bar on a terminal."""

import io
import re
import sys

import pytest

from daad_jax.train import progress
from tests.conftest import tiny_config, tiny_dataset
from tests.train.runs import fit


class Terminal(io.StringIO):
    """A terminal that takes any character."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_after_some_seconds_and_then_every_half_minute(clock, capsys):
    metrics = {"loss/rec": 0.0123456, "discriminator/fake": 0.25, "other": 1.0}
    shown = []
    with progress.Progress("gr\u00f6\u00dfe", range(10, 1010), 4) as bar:
        for step in range(11, 71):
            clock[0] += 1.0
            if bar.due():
                shown.append(step)
            bar.show(step, metrics)
    assert shown == [20, 50]
    assert capsys.readouterr().err.splitlines() == [
        "gr\\xf6\\xdfe: step 20 of 1010, rec 0.01235, D(x_hat) 0.25, 4 images/s, 0:16:30 left",
        "gr\\xf6\\xdfe: step 50 of 1010, rec 0.01235, D(x_hat) 0.25, 4 images/s, 0:16:00 left",
    ]


def test_a_terminal_gets_a_bar_and_no_lines(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.Progress("nut", range(0, 100), 4) as bar:
        for step in range(1, 61):
            clock[0] += 1.0
            assert not bar.due()
            bar.show(step, {"loss/rec": 0.5})
    text = terminal.getvalue()
    assert "nut: " in text
    assert "rec 0.5" in text
    assert "step 20 of" not in text


@pytest.mark.parametrize("log_every", [1, 1000])
def test_training_logs_lines_whatever_the_interval_of_the_metrics_is(
    tmp_path, capsys, monkeypatch, log_every
):
    """And what is written to the run's folder is the same."""
    config = tiny_config("ae", train__steps=4, train__log_every=log_every)
    fit(config, tiny_dataset(config), tmp_path / "quiet")
    assert "step" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    fit(config, tiny_dataset(config), tmp_path / "logged")
    lines = capsys.readouterr().err.splitlines()
    assert [int(line.split()[1]) for line in lines] == [1, 2, 3, 4]
    pattern = r"step \d of 4, rec [\d.e-]+, \d+ images/s, 0:00:\d\d left"
    assert all(re.fullmatch(pattern, line) for line in lines)
    first, second = (
        (tmp_path / name / "metrics.jsonl").read_text() for name in ("quiet", "logged")
    )
    assert first == second
