"""What a person sees of a comparison: a live bar for each run on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from distail.compare.status import Status
from distail.evaluation.headline import MAP
from distail.terminal import LONGEST_SILENCE
from distail.training.progress import StageUnderWay, live_progress, unstoppable_console


class ComparisonReporter(Protocol):
    """Told of everything that happens to the runs; decides what to show.

    A run ends `finished`, `failed` (its teacher's end may be why it did not even start) or, where it was stopped,
    `missing`.
    """

    def message(self, text: str) -> None: ...
    def begin(self, runs: int, done: int, parallel: int) -> None: ...
    def started(self, name: str) -> None: ...
    def progress(self, name: str, status: Status) -> None: ...
    def ended(self, name: str, state: str, text: str) -> None: ...
    def finish(self) -> None: ...


class ComparisonLines:
    """One line an event, and of each run under way one every half minute.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._said: dict[str, float] = {}
        self._stages: dict[str, StageUnderWay] = {}

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, runs: int, done: int, parallel: int) -> None:
        kept = f", {done} already finished" if done else ""
        self.message(f"{runs} run{'s' * (runs != 1)}{kept}; at most {parallel} in parallel")

    def started(self, name: str) -> None:
        self._said[name] = self._clock()
        self.message(f"{name}: started")

    def progress(self, name: str, status: Status) -> None:
        if "stage" not in status or name not in self._said:
            return
        now, done, steps = self._clock(), status["done"], status["steps"]
        stage = self._stages.get(name)
        if stage is None or stage.name != status["stage"]:
            stage = self._stages[name] = StageUnderWay(status["stage"], 1, steps, done, now)
        stage.done = done
        if now - self._said[name] >= LONGEST_SILENCE:
            self._said[name] = now
            self.message(f"{name}: {_short_numbers(status)}  step {done} of {steps}{stage.left(now)}")

    def ended(self, name: str, state: str, text: str) -> None:
        self._stages.pop(name, None)
        self.message(f"{name}: {text}")

    def finish(self) -> None: ...


class ComparisonBars:
    """A bar for the whole and one for each run under way; what ended scrolls away above them."""

    def __init__(self, console: Console) -> None:
        self._lines = ComparisonLines(console)
        self._progress = live_progress(console)
        self._whole = TaskID(0)
        self._tasks: dict[str, TaskID] = {}

    def message(self, text: str) -> None:
        self._lines.message(text)

    def begin(self, runs: int, done: int, parallel: int) -> None:
        self._lines.begin(runs, done, parallel)
        self._whole = self._progress.add_task("runs", total=runs, completed=done, numbers="")
        self._progress.start()

    def started(self, name: str) -> None:
        self._tasks[name] = self._progress.add_task(escape(name), total=None, numbers="starting")

    def progress(self, name: str, status: Status) -> None:
        if "stage" in status:
            task, numbers = self._tasks[name], _short_numbers(status)
            self._progress.update(task, total=status["steps"], completed=status["done"], numbers=numbers)

    def ended(self, name: str, state: str, text: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._progress.remove_task(task)
        self._progress.advance(self._whole)
        self._lines.ended(name, state, text)

    def finish(self) -> None:
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks = {}
        self._progress.stop()


def default_reporter(console: Console | None = None) -> ComparisonReporter:
    """Bars on a terminal, lines elsewhere; both on standard error, so that the tables can be piped."""
    # Runs must not be lost because nobody reads what is said of them.
    console = console or unstoppable_console()
    return ComparisonBars(console) if console.is_terminal else ComparisonLines(console)


def _short_numbers(status: Status) -> str:
    loss, balanced = status.get("loss"), status.get("balanced")
    parts = [status["stage"]]
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if balanced is not None:
        parts.append(f"{MAP if status.get('multi_label') else 'balanced'} {balanced:.1f}")
    return "  ".join(parts)
