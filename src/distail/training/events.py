"""TensorBoard events: the rows of the history, a point an epoch."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from distail import files


class Events:
    """An event file of this process in a folder; written where `write` is called, so that a full disk is told there.

    `torch.utils.tensorboard` writes in a thread of its own, whose failures come as a traceback from nowhere.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the figures of one epoch as `stage/name`, nested names joined by slashes.

        Raises:
            OSError: naming the folder.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=f"{row['stage']}/{name}", simple_value=value) for name, value in flat_figures(row)]
        with files.naming(self._folder):
            self._append(Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=values)))

    def start_again(self) -> None:
        """Forget all events, those of earlier processes too."""
        self.close()
        for path in self._folder.glob("events.out.tfevents.*"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # what a full disk did not take was told when it was written
                file.close()

    def _append(self, event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            self._file = (self._folder / name).open("wb")
            RecordWriter(self._file).write(
                Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            )
        RecordWriter(self._file).write(event.SerializeToString())
        self._file.flush()


def flat_figures(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of one epoch, nested names joined by slashes.

    >>> list(flat_figures({"epoch": 3, "stage": "student", "terms": {"supervised": 2}, "validation": None}))
    [('terms/supervised', 2.0)]
    """
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat_figures(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            yield f"{prefix}{name}", float(value)
