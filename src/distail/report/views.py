"""What a report shows, as plain data: nothing here reads files or knows HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from distail.evaluation.calibration import ReliabilityBin

Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class RunView:
    """One model in a report; whatever is not known stays None or empty and is said to be missing."""

    name: str
    role: Role
    figures: Mapping[str, Any] | None = None
    """What `distail.evaluation.metrics.evaluate_predictions` returns, for the last epoch on the test set."""
    seconds: float | None = None
    parameters: int | None = None
    macs: int | None = None
    history: Sequence[Mapping[str, Any]] = ()
    """The lines of `metrics.jsonl` of this model's stage."""
    reliability: Sequence[ReliabilityBin] = ()
    best_on_validation: Mapping[str, Any] | None = None
    """``epoch`` and ``test`` (figures) of the epoch that did best on the validation split."""


@dataclass(frozen=True)
class ReportView:
    """Everything on one page; the fields are the keywords of `distail.report.page.write_page`."""

    title: str
    runs: Sequence[RunView] = ()
    class_names: Sequence[str] = ()
    class_counts: Sequence[int] = ()
    summary: str | None = None
    bias: Mapping[str, Any] | None = None
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    subset_sha256: str | None = None
    notes: Sequence[str] = ()
    problems: Sequence[str] = ()


def teachers(runs: Sequence[RunView]) -> list[RunView]:
    """Teachers that were measured."""
    return [run for run in runs if run.role == "teacher" and run.figures is not None]


def students(runs: Sequence[RunView]) -> list[RunView]:
    """Students that were measured."""
    return [run for run in runs if run.role == "student" and run.figures is not None]
