"""Logs in JSON lines, and the timings of a run."""

import json

import pytest

from daad_jax.errors import SaveError
from daad_jax.workdir import logs
from tests.workdir.test_failed_save import file_size_limit


def write_lines(path, steps):
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))


def steps_of(path):
    return [json.loads(line)["step"] for line in logs.read_lines(path)]


def test_reopening_removes_later_steps_and_appends(tmp_path):
    path = tmp_path / "log.jsonl"
    write_lines(path, range(1, 7))
    with logs.reopen(path, 4) as file:
        file.write('{"step": 5}\n')
    assert steps_of(path) == [1, 2, 3, 4, 5]


def test_damaged_lines_are_removed_with_a_warning(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff"step": 2}\n[]\n{"step": 4}\n')
    logs.reopen(path, 9).close()
    assert steps_of(path) == [1, 4]
    assert capsys.readouterr().err == f"warning: {path}: removed 2 damaged lines\n"


def test_a_last_line_that_a_crash_cut_short_is_removed_silently(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    logs.reopen(path, 9).close()
    assert steps_of(path) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "log.jsonl"
    message = r"log\.jsonl: cannot be written \(File too large\); .* to resume from the last check"
    with file_size_limit(5), pytest.raises(SaveError, match=message), logs.writing(path):
        path.write_text("a" * 9)


def test_timings_are_one_line_per_interval(tmp_path, monkeypatch):
    clock = [10.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    timings = logs.Timings(tmp_path, 8, 3)
    clock[0] += 2.0
    timings.wait(0.5)
    times = timings.lap(7)
    clock[0] += 1.0
    timings.lap(8)
    timings.close()
    assert times == {"seconds": 2.0, "data_seconds": 0.5, "images_per_second": 16.0}
    lines = [json.loads(line) for line in logs.read_lines(tmp_path / logs.TIMINGS_FILE)]
    assert lines == [
        {"step": 7, **times},
        {"step": 8, "seconds": 1.0, "data_seconds": 0.0, "images_per_second": 8.0},
    ]


@pytest.mark.parametrize(
    ("waits", "advised"), [((90, 9), False), ((0, 30), True), ((0, 15), False)]
)
def test_slow_data_is_reported_except_in_the_first_interval(tmp_path, monkeypatch, waits, advised):
    clock = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    timings = logs.Timings(tmp_path, 8, 0)
    for step, wait in enumerate(waits, 1):
        clock[0] += 100.0
        timings.wait(wait)
        timings.lap(step)
    timings.close()
    assert bool(timings.advice()) == advised
