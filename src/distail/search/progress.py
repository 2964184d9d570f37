"""What a person sees of a search: a live table on a terminal, plain lines anywhere else. Never a test metric."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.live import Live

from distail.compare.progress import ComparisonLines, ComparisonReporter
from distail.compare.status import Status
from distail.evaluation.run_files import FAILED, FINISHED
from distail.report.table import Table
from distail.search.content import UNDER_WAY, SearchContent, TrialContent
from distail.training.progress import unstoppable_console

_SHOWN = 12


class SearchReporter(ComparisonReporter, Protocol):
    """Told of the runs, and of how the search stands."""

    def update(self, content: SearchContent) -> None: ...


class SearchLines:
    """One line for every trial that begins, ends or stops, and every half minute one of each run under way."""

    def __init__(self, console: Console) -> None:
        self._lines = ComparisonLines(console)
        self._said: dict[int, str] = {}

    def message(self, text: str) -> None:
        self._lines.message(text)

    def begin(self, runs: int, done: int, parallel: int) -> None:
        self.message(f"at most {parallel} runs at once")

    def started(self, name: str) -> None:
        self._lines.started(name)

    def progress(self, name: str, status: Status) -> None:
        self._lines.progress(name, status)

    def ended(self, name: str, state: str, text: str) -> None:
        # The text of a run that is finished has test metrics, which nobody should choose by.
        if state == FAILED or not name.startswith("trial-"):
            self._lines.ended(name, state, state if state == FINISHED else text)

    def update(self, content: SearchContent) -> None:
        for one in content["trials"]:
            if self._said.get(one["number"]) != one["state"]:
                self._said[one["number"]] = one["state"]
                self.message(_line(one, content["epochs"]))

    def finish(self) -> None:
        self._lines.finish()


class SearchTable:
    """The best trials and those under way, in a table that is drawn again as they go on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._content: SearchContent | None = None
        self._steps: dict[str, Status] = {}

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, runs: int, done: int, parallel: int) -> None:
        self.message(f"at most {parallel} runs at once")
        self._live.start()

    def started(self, name: str) -> None: ...

    def progress(self, name: str, status: Status) -> None:
        if "stage" in status and self._steps.get(name) != status:
            self._steps[name] = status
            self._draw()

    def ended(self, name: str, state: str, text: str) -> None:
        self._steps.pop(name, None)
        if state == FAILED:
            self.message(f"{name}: {text}")

    def update(self, content: SearchContent) -> None:
        self._content = content
        self._draw()

    def finish(self) -> None:
        self._live.stop()
        if self._content is not None:
            trials_table(self._content, _SHOWN).print(self._console)

    def _draw(self) -> None:
        if self._content is not None:
            steps = {name: f"{each['done']} of {each['steps']} steps" for name, each in self._steps.items()}
            self._live.update(trials_table(self._content, _SHOWN, steps).grid(self._console), refresh=True)


def default_reporter(console: Console | None = None) -> SearchReporter:
    """A table on a terminal, lines elsewhere; both on standard error."""
    console = console or unstoppable_console()
    return SearchTable(console) if console.is_terminal else SearchLines(console)


def trials_table(content: SearchContent, most: int | None = None, steps: dict[str, str] | None = None) -> Table:
    """Trials under way, then the others from the best on; beyond `most` they are only counted.

    Args:
        content: of the search.
        most: how many; None: all.
        steps: name of a run to how far it is.
    """
    ranked = sorted(content["trials"], key=_rank)
    rows = [_row(one, content, steps or {}) for one in ranked[:most]]
    left = len(ranked) - len(rows)
    seconds = content["seconds"]
    took = f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
    top1 = [] if content["top1_loss"] is None else ["Top-1"]
    titles = ["Trial", "What", "Epochs", "Metric", *top1, "State"]
    return Table(
        titles,
        rows,
        title=f"{content['name']}: {len(ranked)} trials in {took}" + (f", {left} not shown" if left else ""),
        caption=f"By {content['rule']}.",
        text_columns=frozenset({0, 1, len(titles) - 1}),
    )


def _rank(one: TrialContent) -> tuple[bool, bool, int, float]:
    figure = -1.0 if one["figure"] is None else one["figure"]
    return one["state"] != UNDER_WAY, not one["within_bound"], -one["epochs"], -figure


def _row(one: TrialContent, content: SearchContent, steps: dict[str, str]) -> list[str]:
    under_way = steps.get(one["folder"].removeprefix("runs/"), "")
    best = "chosen" if content["finalists"] else "best so far"
    state = best if one["number"] == content["best"] else under_way or one["state"]
    if one["problem"] is not None:
        state += f": {one['problem']}"
    if one["figure"] is not None and not one["within_bound"]:
        state += ", loses too much top-1"
    top1 = [] if content["top1_loss"] is None else [_number(one["top1"])]
    return [str(one["number"]), one["words"], str(one["epochs"]), _number(one["figure"]), *top1, state]


def _line(one: TrialContent, epochs: int) -> str:
    if one["state"] == UNDER_WAY:
        return f"trial {one['number']}: {one['words']}"
    known = "" if one["figure"] is None else f": {one['figure']:.1f}"
    known += "" if one["top1"] is None else f", top-1 {one['top1']:.1f}"
    return f"trial {one['number']} ({one['words']}) {one['state']} after {one['epochs']} of {epochs} epochs{known}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
