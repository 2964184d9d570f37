"""Who else is told of every epoch: TensorBoard, and any other tracker that Accelerate knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from distail.errors import unknown_name
from distail.evaluation.run_files import EpochRow

TENSORBOARD = "tensorboard"
_EVENT_FILES = "events.out.tfevents.*"


class Tracker(Protocol):
    """Told of finished epochs; told all of them anew where a resumed run has gone back behind what was told."""

    def write(self, row: EpochRow) -> None: ...
    def start_again(self) -> None: ...
    def close(self) -> None: ...


class AccelerateTracker:
    """A tracker of Accelerate; each start of ours is a run of its own there, which is told all epochs so far.

    TensorBoard reads all files of its folder: those of earlier starts are removed, so that it shows every epoch once.

    A tracker that fails is told of once and then left alone: nobody's training ends because a server is away.

    Args:
        name: `tensorboard`, or what `tracker_problems` lets pass.
        run_name: what the tracker calls the run, or the project that it belongs to.
        folder: the run's folder; what the tracker itself writes lies in the folder of its name there.
        config: the experiment, shown beside the curves.
        warn: told once if the tracker fails.
    """

    def __init__(
        self, name: str, run_name: str, folder: Path, config: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        self._name, self._run_name, self._folder, self._warn = name, run_name, folder, warn
        self._config = dict(_flat_config(config))
        self._tracker: Any = None
        self._written = 0
        self._failed = False

    def write(self, row: EpochRow) -> None:
        """Add the metrics of one epoch as `stage/name`, nested names joined by slashes."""
        values = {f"{row['stage']}/{name}": value for name, value in flat_metrics(row)}
        step = row["epoch"]
        if self._name != TENSORBOARD:
            # Some refuse steps that do not rise: these count the epochs of all stages, beside the stage's own number.
            values[f"{row['stage']}/epoch"] = row["epoch"]
            step = self._written
        self._written += 1

        def log() -> None:
            if self._tracker is None:
                self._tracker = self._start()
            self._tracker.log(values, step=step)

        self._attempt(log)

    def start_again(self) -> None:
        self.close()
        self._written = 0
        if self._name == TENSORBOARD:
            for path in (self._folder / TENSORBOARD).glob(_EVENT_FILES):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._tracker is not None:
            tracker, self._tracker = self._tracker, None
            self._attempt(tracker.finish)

    def _start(self) -> Any:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[self._name]
        if self._name == TENSORBOARD:  # which adds the run's name to the folder, and a folder for each configuration
            tracker = kind(TENSORBOARD, str(self._folder))
            tracker.start()
            return tracker
        if kind.requires_logging_directory:
            folder = self._folder / self._name
            folder.mkdir(parents=True, exist_ok=True)
            tracker = kind(self._run_name, str(folder))
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
            self._warn(
                f"the tracker {self._name} failed ({type(error).__name__}: {error}); training continues without it"
            )


def build_trackers(
    names: Iterable[str], run_name: str, folder: Path, config: Mapping[str, Any], warn: Callable[[str], None]
) -> list[Tracker]:
    """An `AccelerateTracker` for each of these names."""
    return [AccelerateTracker(name, run_name, folder, config, warn) for name in dict.fromkeys(names)]


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
    problems = []
    for name in others:
        if name not in known:
            problems.append(unknown_name("tracker", name, known))
        elif name in absent:
            problems.append(f"{name} is not installed here (pip install {name}); installed: {installed}")
    return problems


def flat_metrics(row: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of one epoch, nested names joined by slashes.

    >>> list(flat_metrics({"epoch": 3, "stage": "student", "terms": {"supervised": 2}, "validation": None}))
    [('terms/supervised', 2.0)]
    """
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flat_metrics(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            yield f"{prefix}{name}", float(value)


def _flat_config(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | str | float | int | None]]:
    """Dotted keys; lists as text, since trackers take single values."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat_config(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | str | float | int | None) else str(value)
