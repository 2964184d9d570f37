"""Who else is told of every epoch: TensorBoard, and any tracker that Accelerate knows."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from distail import files
from distail.errors import unknown_name

TENSORBOARD = "tensorboard"


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


class Tracker(Protocol):
    """Told of finished epochs; told all of them anew where a resumed run has gone back behind what was told."""

    def write(self, row: Mapping[str, Any]) -> None: ...
    def start_again(self) -> None: ...
    def close(self) -> None: ...


class Accelerated:
    """A tracker of Accelerate; each start of ours is a run of its own there, which is told all epochs so far.

    A tracker that fails is told of once and then left alone: nobody's training ends because a server is away. Steps
    count the epochs of all stages, since some trackers refuse steps that do not rise; the stage's own number is
    ``stage/epoch``.
    """

    def __init__(
        self, name: str, run_name: str, folder: Path, config: Mapping[str, Any], message: Callable[[str], None]
    ) -> None:
        self._name, self._run_name, self._folder, self._message = name, run_name, folder, message
        self._config = dict(_flat_config(config))
        self._open: Any = None
        self._steps = 0
        self._failed = False

    def write(self, row: Mapping[str, Any]) -> None:
        values = {f"{row['stage']}/{name}": value for name, value in flat_figures(row)}
        values[f"{row['stage']}/epoch"] = row["epoch"]

        def log() -> None:
            if self._open is None:
                self._open = self._started()
            self._open.log(values, step=self._steps)

        self._attempt(log)
        self._steps += 1

    def start_again(self) -> None:
        self.close()
        self._steps = 0

    def close(self) -> None:
        if self._open is not None:
            tracker, self._open = self._open, None
            self._attempt(tracker.finish)

    def _started(self) -> Any:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[self._name]
        if kind.requires_logging_directory:
            self._folder.mkdir(parents=True, exist_ok=True)
            tracker = kind(self._run_name, str(self._folder))
        else:
            tracker = kind(self._run_name)
        tracker.start()
        tracker.store_init_configuration(self._config)
        return tracker

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            self._message(
                f"the tracker {self._name} failed ({type(error).__name__}: {error}); training goes on without it"
            )


def build_trackers(
    names: Iterable[str],
    run_name: str,
    folder: Path,
    config: Mapping[str, Any],
    message: Callable[[str], None],
) -> list[Tracker]:
    """The trackers of these names; what they write themselves lies below `folder`.

    Args:
        names: `tensorboard`, or names that Accelerate knows, checked by `tracker_problems`.
        run_name: what a tracker calls the run, or the project it belongs to.
        folder: the run's folder.
        config: the experiment, shown by trackers beside the curves.
        message: told once if a tracker fails.
    """
    return [
        Events(folder / TENSORBOARD)
        if name == TENSORBOARD
        else Accelerated(name, run_name, folder / name, config, message)
        for name in dict.fromkeys(names)
    ]


def tracker_problems(names: Sequence[str]) -> list[str]:
    """What is wrong with these names: unknown ones with the nearest valid choice, and those not installed here.

    >>> tracker_problems(["tensorboard"])
    []
    >>> tracker_problems(["wandbb"])[0][:52]
    "unknown tracker 'wandbb'. Did you mean 'wandb'? Vali"
    """
    others = [name for name in dict.fromkeys(names) if name != TENSORBOARD]
    if not others:
        return []
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = {str(name) for name in LOGGER_TYPE_TO_CLASS}
    # Trackers that a program has registered itself need no package of Accelerate's list.
    absent = {str(kind) for kind in LoggerType} - {str(kind) for kind in get_available_trackers()}
    installed = ", ".join(sorted({TENSORBOARD, *(known - absent)}))
    return [
        unknown_name("tracker", name, known)
        if name not in known
        else f"{name} is not installed here (pip install {name}); installed: {installed}"
        for name in others
        if name not in known or name in absent
    ]


def _flat_config(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | str | float | int | None]]:
    """Dotted keys; lists as text, since trackers take single values."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat_config(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | str | float | int | None) else str(value)
