"""What a report shows, as plain data: nothing here reads files or knows HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from distail.evaluation.calibration import ReliabilityBin
from distail.evaluation.samples import Samples
from distail.evaluation.significance import Difference

Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Spread:
    """Sample deviation and 95 % interval of a mean over seeds; None where one seed cannot tell."""

    deviation: float | None = None
    interval: tuple[float, float] | None = None


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
    seeds: tuple[int, ...] = ()
    """The seeds that the figures are means over; empty for a single run."""
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    """How far seeds lie apart, by the figure's dotted path, such as ``groups.thirds.tail``."""
    predicted: Sequence[int] = ()
    """The predicted class of each test image; for means over seeds, of the first seed."""
    error_flow: Mapping[str, Any] | None = None
    """The ``flow`` of `distail.evaluation.teacher_bias.error_flow`."""
    tail_errors: Sequence[float] = ()
    """(C,) how many wrong predictions of tail images name each class; means over seeds."""
    class_counts: Sequence[int] = ()
    """(C,) training images of each class, which tell a group without classes from one without test images."""


@dataclass(frozen=True)
class ComparisonView:
    """What a comparison knows beyond its runs."""

    baseline: str
    seeds: tuple[int, ...]
    teachers: str = "shared"
    differences: Sequence[Difference] = ()
    statements: Sequence[str] = ()
    missing: Sequence[str] = ()
    """One sentence a run that failed or is not there."""


@dataclass(frozen=True)
class ReportView:
    """Everything on one page."""

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
    comparison: ComparisonView | None = None
    test_labels: Sequence[int] = ()
    """The true class of each test image, in the order of the runs' ``predicted``."""
    samples: Samples | None = None


def recall_by_class(run: RunView) -> Sequence[float | None] | None:
    """(C,) recalls in percent, None for a class without test images; None where nothing was measured by class."""
    recalls: Sequence[float | None] | None = None if run.figures is None else run.figures.get("per_class_recall")
    return recalls


class Measured(Protocol):
    """Whatever carries figures."""

    @property
    def figures(self) -> Mapping[str, Any] | None: ...


def figure(run: Measured, path: str) -> float | None:
    """A figure by its dotted path, such as ``groups.thirds.tail``; None where it was not measured."""
    found: Any = run.figures
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return None if found is None else float(found)


def teachers(runs: Sequence[RunView]) -> list[RunView]:
    """Teachers that were measured."""
    return [run for run in runs if run.role == "teacher" and run.figures is not None]


def students(runs: Sequence[RunView]) -> list[RunView]:
    """Students that were measured."""
    return [run for run in runs if run.role == "student" and run.figures is not None]
