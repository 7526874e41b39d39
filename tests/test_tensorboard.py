import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from daad_jax import config as config_lib
from daad_jax.tensorboard import ScalarWriter
from daad_jax.training import METRICS_FILE, TENSORBOARD, MetricsLog
from daad_jax.watch import Watch, finiteness


def read_events(folder):
    """All events of a folder, in TensorBoard's order of files."""
    events = []
    for path in sorted(folder.iterdir()):
        data, position = path.read_bytes(), 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            events.append(Event.FromString(data[position + 12 : position + 12 + length]))
            position += 16 + length
    return events


def shown_steps(events):
    """The steps that TensorBoard shows: it drops those from a later start's step on."""
    steps, started = [], False
    for event in events:
        if event.session_log.status == SessionLog.START:
            steps = [step for step in steps if not started or step < event.step]
            started = True
        if event.summary.value:
            steps.append(event.step)
    return steps


def test_resuming_doubles_no_step(tmp_path):
    config = config_lib.from_setting("daad_plus")
    config.train.log_every = 2
    for start, end in ((0, 9), (4, 8), (8, 12)):
        with MetricsLog(tmp_path / METRICS_FILE, config, start, Watch({})) as log:
            for step in range(start + 1, end + 1):
                values = {"loss/rec": step + start / 100}
                log.add(range(step - 1, step), values, finiteness(("", {"a": 1.0})))
            log.flush()
            log.sync()
            # A killed run never closes its log: what it synced has to be there already.
            assert shown_steps(read_events(tmp_path / TENSORBOARD))[-1] == end - end % 2
    events = read_events(tmp_path / TENSORBOARD)
    assert events[0].file_version == "brain.Event:2"
    assert shown_steps(events) == [2, 4, 6, 8, 10, 12]


def test_scalars_have_their_names_and_values(tmp_path):
    writer = ScalarWriter(tmp_path, 0)
    writer.write(3, {"loss/rec": 0.25, "loss/adv": float("nan")})
    writer.close()
    (event,) = [event for event in read_events(tmp_path) if event.summary.value]
    assert event.step == 3
    values = {value.tag: value.simple_value for value in event.summary.value}
    assert values == pytest.approx({"loss/rec": 0.25, "loss/adv": float("nan")}, nan_ok=True)
