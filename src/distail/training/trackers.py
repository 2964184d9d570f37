"""Who else is told of every epoch: TensorBoard, and any tracker that Accelerate knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from distail.errors import unknown_name
from distail.training.events import Events, flat_figures

TENSORBOARD = "tensorboard"


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
