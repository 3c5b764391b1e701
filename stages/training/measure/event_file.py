"""TensorBoard's event files: scalars by step, written without torch. Knows no run and no curve."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

OURS = ".vitpipe"
"""How the names of our files end."""


class EventFile:
    """One file in `folder`, which TensorBoard shows as one run; it only grows, and may be read meanwhile."""

    def __init__(self, folder: Path, number: int = 0) -> None:
        """Begin a file. Of several in a folder the one begun last, or with the highest number, replaces the others."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{number}{OURS}"
        self.path = folder / name
        with self:
            self._write(Event(wall_time=0.0, file_version="brain.Event:2"))
            # whatever TensorBoard has read of an older file in this folder no longer counts
            self._write(Event(wall_time=0.0, step=0, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, clock: float, values: Mapping[str, float]) -> None:
        """Append the values of a step, in its block; `clock` is seconds of training until then."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._write(Event(wall_time=clock, step=step, summary=summary))

    def __enter__(self) -> Self:
        """Open it to append; it is closed with the block, so that any number may be kept."""
        self._file = self.path.open("ab")
        self._records = RecordWriter(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
