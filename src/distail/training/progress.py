"""What a person sees while it runs: a live bar on a terminal or in a notebook, plain lines anywhere else."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from distail.evaluation.headline import MAP, headline, is_multi_label
from distail.evaluation.run_files import EpochRow
from distail.terminal import LONGEST_SILENCE, PrintableConsole, printable

_DRAWN_EVERY = 0.25  # seconds: each drawing of a notebook's bar is a message to a browser


class Reporter(Protocol):
    """Told of everything that happens; decides what to show."""

    def message(self, text: str) -> None: ...
    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None: ...
    def step(self) -> None: ...
    def epoch(self, row: EpochRow, epochs: int) -> None: ...
    def finish(self) -> None: ...


class Silent:
    """Shows nothing."""

    def message(self, text: str) -> None: ...
    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None: ...
    def step(self) -> None: ...
    def epoch(self, row: EpochRow, epochs: int) -> None: ...
    def finish(self) -> None: ...


class Lines:
    """One line an event, and while a stage is under way one every half minute: for logs, pipes and CI.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._said = clock()
        self._stage: StageUnderWay | None = None

    def message(self, text: str) -> None:
        self._said = self._clock()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None:
        self._stage = StageUnderWay(stage, epochs, steps_per_epoch, done_steps, self._clock())
        if done_steps:
            self.message(f"{stage}: resuming after step {done_steps} of {epochs * steps_per_epoch}")

    def step(self) -> None:
        stage, now = self._stage, self._clock()
        if stage is None:
            return
        stage.done += 1
        if now - self._said >= LONGEST_SILENCE and stage.done % stage.steps_per_epoch:  # else the epoch says it
            epoch, step = divmod(stage.done, stage.steps_per_epoch)
            where = f"epoch {epoch + 1}/{stage.epochs}, step {step} of {stage.steps_per_epoch}"
            self.message(f"{stage.name} {where}{stage.left(now)}")

    def epoch(self, row: EpochRow, epochs: int) -> None:
        left = "" if self._stage is None else self._stage.left(self._clock())
        self.message(epoch_line(row, epochs) + left)

    def finish(self) -> None:
        self._stage = None


@dataclass
class StageUnderWay:
    """How far a stage is, and how long the rest takes if its steps go on as they did since `began`.

    >>> stage = StageUnderWay("student", epochs=5, steps_per_epoch=10, done=10, began=0.0)
    >>> stage.done = 20
    >>> stage.left(60.0)
    '  about 3 min left'
    """

    name: str
    epochs: int
    steps_per_epoch: int
    done: int
    began: float

    def __post_init__(self) -> None:
        self._done_before = self.done

    def left(self, now: float) -> str:
        """In words, to follow a line; empty where it is not known, or nothing is left."""
        steps = self.epochs * self.steps_per_epoch
        if not self._done_before < self.done < steps:
            return ""
        minutes = round((now - self.began) / (self.done - self._done_before) * (steps - self.done) / 60)
        hours, rest = divmod(minutes, 60)
        return f"  about {f'{hours} h ' if hours else ''}{rest} min left" if minutes else "  under a minute left"


class Named:
    """Tells another reporter, with the run's name before everything.

    Args:
        reporter: the other.
        name: the run's.
        stages: other names of its stages.
    """

    def __init__(self, reporter: Reporter, name: str, stages: Mapping[str, str] | None = None) -> None:
        self._reporter, self._name, self._stages = reporter, name, stages or {}

    def message(self, text: str) -> None:
        self._reporter.message(f"{self._name}: {text}")

    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None:
        self._reporter.start(self._of_run(stage), epochs, steps_per_epoch, done_steps)

    def step(self) -> None:
        self._reporter.step()

    def epoch(self, row: EpochRow, epochs: int) -> None:
        self._reporter.epoch({**row, "stage": self._of_run(row["stage"])}, epochs)

    def finish(self) -> None:
        self._reporter.finish()

    def _of_run(self, stage: str) -> str:
        return f"{self._name}: {self._stages.get(stage, stage)}"


class Bar:
    """A live progress bar with loss, validation accuracy and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None:
        self._progress = live_progress(self._console)
        self._task = self._progress.add_task(stage, total=epochs * steps_per_epoch, completed=done_steps, numbers="")
        self._progress.start()

    def step(self) -> None:
        assert self._progress is not None
        self._progress.advance(self._task)

    def epoch(self, row: EpochRow, epochs: int) -> None:
        assert self._progress is not None
        self._progress.update(self._task, numbers=_short_numbers(row))

    def finish(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class NotebookBar:
    """A progress bar in a notebook: HTML that is drawn again in its place, for which no widgets are needed.

    Args:
        display: of `IPython.display`: shows an object, and returns what shows another in its place.
        clock: seconds that only rise.
    """

    def __init__(self, display: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._display, self._clock = display, clock
        self._stage: StageUnderWay | None = None
        self._place: Any = None
        self._numbers, self._drawn = "", 0.0

    def message(self, text: str) -> None:
        print(printable(text))

    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None:
        self._stage = StageUnderWay(stage, epochs, steps_per_epoch, done_steps, self._clock())
        self._numbers = ""
        self._place = self._display(_Html(self._bar(self._stage)), display_id=True)

    def step(self) -> None:
        if self._stage is not None:
            self._stage.done += 1
            if self._clock() - self._drawn >= _DRAWN_EVERY:
                self._draw()

    def epoch(self, row: EpochRow, epochs: int) -> None:
        self._numbers = f"epoch {row['epoch'] + 1}/{epochs}  {_short_numbers(row)}"
        self._draw()

    def finish(self) -> None:
        self._draw()
        self._stage = None

    def _draw(self) -> None:
        if self._stage is not None:
            self._drawn = self._clock()
            self._place.update(_Html(self._bar(self._stage)))

    def _bar(self, stage: StageUnderWay) -> str:
        steps, name = stage.epochs * stage.steps_per_epoch, html.escape(printable(stage.name))
        said = html.escape(f"{stage.done}/{steps} steps  {self._numbers}{stage.left(self._clock())}")
        bar = f'<progress value="{stage.done}" max="{steps}" aria-label="{name}"></progress>'
        return f'<div style="white-space: pre-wrap"><b>{name}</b> {bar} {said}</div>'


@dataclass(frozen=True)
class _Html:
    text: str

    def _repr_html_(self) -> str:
        return self.text


def live_progress(console: Console) -> Progress:
    """Bars that tell how far each task is, the time left, and in what room is left its field ``numbers``."""
    return Progress(
        TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=console,
    )


class IgnoreWriteErrors:
    """A stream whose failures stop nobody: a run goes on without its terminal, its reader, or room for its log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unstoppable_console(**options: Any) -> Console:
    """Standard error, so that output can be piped, as a console whose failures stop nobody."""
    return PrintableConsole(file=cast(TextIO, IgnoreWriteErrors(sys.stderr)), **options)


def default_reporter(console: Console | None = None, *, name: str = "", **options: Any) -> Reporter:
    """A bar on a terminal or in a notebook, lines elsewhere; those that are no HTML on standard error.

    Args:
        name: of the run, before every line: a log may be that of several.
    """
    console = console or unstoppable_console(**options)
    if console.is_jupyter:
        from IPython.display import display

        return NotebookBar(display)
    if console.is_terminal:
        return Bar(console)
    return Named(Lines(console), name) if name else Lines(console)


def epoch_line(row: EpochRow, epochs: int) -> str:
    """One epoch in words.

    >>> epoch_line({"stage": "student", "epoch": 0, "loss": 2.5, "terms": {"supervised": 1.5, "distillation": 1.0},
    ...             "validation": None, "learning_rate": 0.1, "images_per_second": 900.0}, 30)
    'student epoch 1/30  loss 2.5000 (supervised 1.5000, distillation 1.0000)  learning rate 0.1  900 images/s'
    """
    numbers = _numbers(row, epochs)
    return (
        f"{row['stage']} {numbers}  learning rate {row['learning_rate']:.4g}  {row['images_per_second']:.0f} images/s"
    )


def _short_numbers(row: EpochRow) -> str:
    """What fits beside a bar in 80 columns."""
    validation = row["validation"]
    if validation is None:
        return f"loss {row['loss']:.3f}"
    if is_multi_label(validation):
        return f"loss {row['loss']:.3f}  validation {MAP} {headline(validation):.1f}"
    accuracy = f"{validation['top1']:.1f}, balanced {validation['balanced_accuracy']:.1f}"
    return f"loss {row['loss']:.3f}  validation {accuracy}"


def _numbers(row: EpochRow, epochs: int) -> str:
    parts = [f"epoch {row['epoch'] + 1}/{epochs}", f"loss {row['loss']:.4f}{_terms(row)}"]
    parts += [f"{name} {value:.3g}" for name, value in (row.get("statistics") or {}).items()]
    validation = row["validation"]
    if validation is not None:
        if is_multi_label(validation):
            parts.append(f"validation {MAP} {headline(validation):.2f}")
        else:
            parts += [f"validation top-1 {validation['top1']:.2f}", f"balanced {headline(validation):.2f}"]
        thirds = validation.get("groups", {}).get("thirds", {})
        parts += [f"{name} {value:.2f}" for name, value in thirds.items() if value is not None]
    return "  ".join(parts)


def _terms(row: EpochRow) -> str:
    """The objective's terms by name, where the loss has more than one."""
    terms = row.get("terms") or {}
    return f" ({', '.join(f'{name} {value:.4f}' for name, value in terms.items())})" if len(terms) > 1 else ""
