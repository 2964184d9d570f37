"""`distail run --plan` on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from distail.errors import counted
from distail.report.table import Table, one_line
from distail.runner.plan import TIMED, RunPlan

if TYPE_CHECKING:
    from rich.console import Console

# Of more classes than twice this many only the largest and the smallest are shown.
_SHOWN_CLASSES = 20


def print_plan(plan: RunPlan, console: Console) -> None:
    """Images by class and split, each stage's size and time, memory, files, and all that there is to warn of."""

    def say(text: str) -> None:
        console.print(one_line(text), highlight=False, markup=False, soft_wrap=True)

    experiment = plan.experiment
    say(f"Plan of {experiment.name}: {experiment.method_name}, seed {experiment.seed}. Nothing is trained.")
    say(plan.reading)
    console.print()
    _class_table(plan).print(console)
    console.print()
    _stage_table(plan).print(console)
    say(_training_time(plan))
    say(_memory(plan))
    console.print()
    say(f"{experiment.output}/ {plan.standing or 'is new'}. What is written there:")
    for path, megabytes in plan.files.items():
        say(f"- {path}{'' if megabytes is None else f', about {_size(megabytes)}'}")
    if plan.warnings:
        console.print("\nWarnings and notes", style="bold")
        for warning in plan.warnings:
            say(f"- {warning}")


def _class_table(plan: RunPlan) -> Table:
    names, counts = plan.data.class_names, plan.data.class_counts
    order = sorted(range(len(names)), key=lambda i: -counts[i])
    left_out = len(order) - 2 * _SHOWN_CLASSES
    shown = order if left_out <= 0 else [*order[:_SHOWN_CLASSES], *order[-_SHOWN_CLASSES:]]
    rows = [[names[i], *(f"{by_class[i]:,}" for by_class in plan.class_counts.values())] for i in shown]
    rows.append(["all", *(f"{sum(by_class):,}" for by_class in plan.class_counts.values())])
    caption = f"{left_out:,} classes between these are left out." if left_out > 0 else ""
    return Table(["Class", *(split.capitalize() for split in plan.class_counts)], rows, caption=caption)


def _stage_table(plan: RunPlan) -> Table:
    columns = ["Stage", "Network", "Parameters", "MACs", "Epochs", "Batch", "Steps", "Format", "ms per step", "Minutes"]
    rows = []
    for stage in plan.stages:
        parameters, macs = (f"{value / 1e6:,.2f} M" for value in (stage.parameters, stage.macs))
        work = [f"{value:,}" for value in (stage.epochs, stage.batch_size, stage.steps)]
        step, minutes = f"{1000 * stage.seconds_a_step:,.1f}", f"{stage.seconds / 60:,.1f}"
        rows.append([stage.name, stage.model, parameters, macs, *work, stage.precision, step, minutes])
    return Table(columns, rows, text_columns=frozenset({0, 1, 7}))


def _training_time(plan: RunPlan) -> str:
    minutes = max(1, math.ceil(plan.seconds / 60))
    long = f"{minutes} minute{'s' * (minutes != 1)}" if minutes < 120 else f"{minutes / 60:,.1f} hours"
    teacher = plan.experiment.teacher
    from_files = ", ".join(str(path) for path in teacher.files) if teacher else ""
    loaded = f" The teacher is loaded from {from_files}." if from_files else ""
    where = f"{plan.runtime.device} in {plan.runtime.precision}"
    if plan.runtime.device.type == "cpu":
        where += f" with {counted(plan.threads, 'thread')}"
    return f"About {long} of training on {where}: a guess from the median of {TIMED} steps.{loaded}"


def _memory(plan: RunPlan) -> str:
    noun = plan.data.train.noun
    held = f"{noun}s stay on disk and are {'decoded' if noun == 'image' else 'read'} batch by batch"
    if plan.image_megabytes is not None:
        held = f"{noun}s take {_size(plan.image_megabytes)} in memory"
    peak = "" if plan.peak_megabytes is None else f"; at its peak {_size(plan.peak_megabytes)} of memory were in use"
    return f"Memory: {held}{peak}."


def _size(megabytes: float) -> str:
    """Megabytes of 2**20 bytes in words.

    >>> _size(0.004), _size(12.3), _size(20480)
    ('0.1 MB', '12.3 MB', '20.0 GB')
    """
    return f"{max(megabytes, 0.1):.1f} MB" if megabytes < 1024 else f"{megabytes / 1024:,.1f} GB"
