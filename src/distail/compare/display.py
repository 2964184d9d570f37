"""One live display of all runs on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from distail.training.progress import unstoppable_console


class Display(Protocol):
    """Told of everything that happens to the runs."""

    def begin(self, runs: int, done: int, parallel: int) -> None: ...
    def started(self, name: str) -> None: ...
    def progress(self, name: str, status: Mapping[str, Any]) -> None: ...
    def ended(self, name: str, text: str) -> None: ...
    def message(self, text: str) -> None: ...
    def finish(self) -> None: ...


class LineDisplay:
    """One line an event."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, runs: int, done: int, parallel: int) -> None:
        kept = f", {done} of them finished already" if done else ""
        self.message(f"{runs} run{'s' * (runs != 1)}{kept}; at most {parallel} at once")

    def started(self, name: str) -> None:
        self.message(f"{name}: started")

    def progress(self, name: str, status: Mapping[str, Any]) -> None: ...

    def ended(self, name: str, text: str) -> None:
        self.message(f"{name}: {text}")

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def finish(self) -> None: ...


class LiveDisplay:
    """A bar for the whole and one for each run under way; what ended scrolls away above them."""

    def __init__(self, console: Console) -> None:
        self._lines = LineDisplay(console)
        self._progress = Progress(
            TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console,
        )
        self._whole = TaskID(0)
        self._tasks: dict[str, TaskID] = {}

    def begin(self, runs: int, done: int, parallel: int) -> None:
        self._lines.begin(runs, done, parallel)
        self._whole = self._progress.add_task("runs", total=runs, completed=done, figures="")
        self._progress.start()

    def started(self, name: str) -> None:
        self._tasks[name] = self._progress.add_task(escape(name), total=None, figures="starting")

    def progress(self, name: str, status: Mapping[str, Any]) -> None:
        if "stage" in status:
            self._progress.update(
                self._tasks[name], total=status["steps"], completed=status["done"], figures=_figures(status)
            )

    def ended(self, name: str, text: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._progress.remove_task(task)
        self._progress.advance(self._whole)
        self._lines.ended(name, text)

    def message(self, text: str) -> None:
        self._lines.message(text)

    def finish(self) -> None:
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks = {}
        self._progress.stop()


def default_display(console: Console | None = None) -> Display:
    """Live on a terminal, lines elsewhere; both on standard error, so that the tables can be piped."""
    # Runs must not be lost because nobody reads what is said of them.
    console = console or unstoppable_console()
    return LiveDisplay(console) if console.is_terminal else LineDisplay(console)


def _figures(status: Mapping[str, Any]) -> str:
    loss, balanced = status.get("loss"), status.get("balanced")
    texts = [str(status["stage"])]
    texts += [f"loss {loss:.3f}"] if loss is not None else []
    texts += [f"balanced {balanced:.1f}"] if balanced is not None else []
    return "  ".join(texts)
