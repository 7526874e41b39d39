"""TensorBoard event files."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from daad_jax.workdir.tensorboard import ScalarWriter


def read_events(folder):
    """All events in a folder; TensorBoard reads its files in the same order."""
    events = []
    for path in sorted(folder.iterdir()):
        data, position = path.read_bytes(), 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            events.append(Event.FromString(data[position + 12 : position + 12 + length]))
            position += 16 + length
    return events


def shown_steps(events):
    """The steps that TensorBoard shows: a later START event drops the steps from its own on."""
    steps, started = [], False
    for event in events:
        if event.session_log.status == SessionLog.START:
            steps = [step for step in steps if not started or step < event.step]
            started = True
        if event.summary.value:
            steps.append(event.step)
    return steps


def test_after_a_resume_every_step_is_shown_once(tmp_path):
    for start, end in ((0, 9), (4, 8), (8, 12)):
        writer = ScalarWriter(tmp_path, start)
        for step in range(start + 1, end + 1):
            writer.write(step, {"loss/rec": step + start / 100})
        writer.flush()
        # A killed run does not close its file, so all steps have to be on the disk now.
        assert shown_steps(read_events(tmp_path))[-1] == end
    events = read_events(tmp_path)
    assert events[0].file_version == "brain.Event:2"
    assert shown_steps(events) == list(range(1, 13))


def test_scalars_have_their_names_and_values(tmp_path):
    writer = ScalarWriter(tmp_path, 0)
    writer.write(3, {"loss/rec": 0.25, "loss/adv": float("nan")})
    writer.close()
    (event,) = [event for event in read_events(tmp_path) if event.summary.value]
    assert event.step == 3
    values = {value.tag: value.simple_value for value in event.summary.value}
    assert values == pytest.approx({"loss/rec": 0.25, "loss/adv": float("nan")}, nan_ok=True)


def test_a_folder_named_like_a_bucket_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ScalarWriter(Path("gs:x/y"), 0).close()
    assert len(read_events(tmp_path / "gs:x/y")) == 2
