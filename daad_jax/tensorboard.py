"""Event files for TensorBoard, without TensorFlow. Only this file imports tensorboardX."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class ScalarWriter:
    """Appends scalars to a new event file of a folder.

    It writes in the caller's thread: tensorboardX's own `SummaryWriter` queues events, and a run
    that is killed would lose those of steps that its checkpoint already holds.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Opens the file of a run that stands at `step`; TensorBoard drops what came after it."""
        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names; two may be opened within one second.
        self._writer = EventsWriter(os.fspath(folder / "events"), f".{step:09d}.{time.time_ns()}")
        # A first start only begins the record; every later one drops the steps from its own on.
        session = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=session))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of one step under their names."""
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = Summary(value=scalars)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Brings what was written to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
