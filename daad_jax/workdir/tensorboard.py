"""TensorBoard event files, without TensorFlow. Only this file imports tensorboardX."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class ScalarWriter:
    """Writes scalars to a new event file in a folder.

    It writes in the caller's thread. tensorboardX's own `SummaryWriter` uses a queue, so a killed
    run would lose events of steps that its checkpoint already contains.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Opens a new event file for a run that has made `step` steps."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in order of their names; two may be opened in the same second.
        # Absolute, because tensorboardX takes "gs:x" for a bucket.
        self._writer = EventsWriter(
            os.path.abspath(folder / "events"), f".{step:09d}.{time.time_ns()}"
        )
        # The START event of a resumed run makes TensorBoard drop events from this step on.
        session = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=session))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of one step under their names."""
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = Summary(value=scalars)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Writes buffered events to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
