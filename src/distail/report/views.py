"""What a report shows, as plain data: nothing here reads files or knows HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from distail.evaluation.adjustment import TAU
from distail.evaluation.calibration import ReliabilityBin
from distail.evaluation.groups import empty_groups
from distail.evaluation.headline import BALANCED_ACCURACY, MAP, MEAN_AVERAGE_PRECISION, by_class, is_multi_label
from distail.evaluation.metrics import MetricValues
from distail.evaluation.run_files import EpochRow
from distail.evaluation.significance import Difference
from distail.evaluation.teacher_bias import Flow, TeacherBias
from distail.report.mistakes import Mistakes
from distail.report.samples import Samples

Role = Literal["teacher", "student"]
NO_CLASS = "no such class"
NO_IMAGE = "no test image"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Spread:
    """Sample standard deviation and 95 % interval of a mean over seeds; None where one seed cannot tell."""

    std: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class BestEpoch:
    """The epoch that did best on the validation split, counted from 0, None where it is not known, on the test set.

    With `method.adjust` its logits were adjusted by `tau`, which `auto` chooses for this epoch.
    """

    epoch: int | None
    metrics: MetricValues
    tau: float | None = None


@dataclass(frozen=True)
class Adjusted:
    """A model whose logits were adjusted after training, on the test set, and how far its seeds lie apart."""

    metrics: MetricValues
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    tau: float = TAU


@dataclass(frozen=True)
class RunView:
    """One model in a report; whatever is not known stays None or empty and is said to be missing."""

    name: str
    role: Role
    metrics: MetricValues | None = None
    """What `distail.evaluation.metrics.evaluate_predictions` returns, for the last epoch on the test set."""
    seconds: float | None = None
    parameters: int | None = None
    macs: int | None = None
    size: int | None = None
    """Bytes of its file of weights."""
    latency: float | None = None
    """Milliseconds of processor time of one image on one thread of `processor`; over seeds the median."""
    processor: str | None = None
    history: Sequence[EpochRow] = ()
    """The lines of `metrics.jsonl` of this model's stage."""
    reliability: Sequence[ReliabilityBin] = ()
    best_on_validation: BestEpoch | None = None
    taus: Sequence[float] = ()
    """How far the logits of its own metrics are adjusted (`method.adjust`), where its name does not say so."""
    adjusted: Adjusted | None = None
    """None as well where adjusting would remove the prior a second time."""
    seeds: tuple[int, ...] = ()
    """The seeds that the metrics are means over; empty for a single run."""
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    """How far seeds lie apart, by the metric's path, such as ``groups.thirds.tail``."""
    predicted: Sequence[int] = ()
    """The predicted class of each test image; for means over seeds, of the first seed."""
    error_flow: Flow | None = None
    """The ``flow`` of `distail.evaluation.teacher_bias.error_flow`."""
    tail_errors: Sequence[float] = ()
    """(C,) how many wrong predictions of tail images name each class; means over seeds."""
    class_counts: Sequence[int] = ()
    """(C,) training images of each class, which tell a group without classes from one without test images."""
    not_in_every_fold: Collection[str] = ()
    """The groups, by their metric's path, that have a class in some folds alone."""


@dataclass(frozen=True)
class ComparisonView:
    """What a comparison knows beyond its runs."""

    baseline: str
    seeds: tuple[int, ...]
    teachers: str = "shared"
    differences: Sequence[Difference] = ()
    beyond_adjusting: Mapping[str, Sequence[Difference]] = field(default_factory=dict)
    """By a row that was only adjusted after training, how far the others go beyond it."""
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
    bias: TeacherBias | None = None
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    subset_sha256: str | None = None
    test_sha256: str | None = None
    notes: Sequence[str] = ()
    problems: Sequence[str] = ()
    comparison: ComparisonView | None = None
    test_labels: Sequence[int] = ()
    """The true class of each test image, in the order of the runs' ``predicted``."""
    samples: Samples | None = None
    exported: Mapping[str, Any] | None = None
    """What `export.json` holds, for one run that was exported."""
    mistakes: Mistakes | None = None
    """Of one run's student, by the names of images."""

    def tested_as(self, other: ReportView) -> bool:
        """Whether the test images of both are the same, by their hashes, or where there are none by their labels."""
        if self.test_sha256 and other.test_sha256:
            return self.test_sha256 == other.test_sha256
        return list(self.test_labels) == list(other.test_labels)


@dataclass(frozen=True)
class Words:
    """What the measures are called: of a class, and of all of them.

    Attributes:
        headline_path: of the latter, its path in `distail.evaluation.metrics.METRICS`.
    """

    by_class: str = "recall"
    headline: str = "balanced accuracy"
    headline_path: str = BALANCED_ACCURACY

    @property
    def multi_label(self) -> bool:
        """Whether they are those of images that may have several classes."""
        return self.headline_path == MEAN_AVERAGE_PRECISION


_MULTI_LABEL = Words("average precision", MAP, MEAN_AVERAGE_PRECISION)


def words_of(runs: Sequence[RunView]) -> Words:
    """By what the runs are measured: by other measures where an image may have several classes.

    >>> words_of([]).by_class
    'recall'
    """
    multi_label = any(run.metrics is not None and is_multi_label(run.metrics) for run in runs)
    return _MULTI_LABEL if multi_label else Words()


def capital(words: str) -> str:
    """A sentence's beginning.

    >>> capital("average precision"), capital("mAP")
    ('Average precision', 'mAP')
    """
    return words if words[1:].lower() != words[1:] else words[:1].upper() + words[1:]


def recall_by_class(run: RunView) -> Sequence[float | None] | None:
    """(C,) recalls in percent, or average precisions where an image may have several classes.

    None for a class without test images; None where nothing was measured by class.
    """
    recalls: Sequence[float | None] | None = by_class(run.metrics) if run.metrics is not None else None
    return recalls


def teachers(runs: Sequence[RunView]) -> list[RunView]:
    """Teachers that were measured."""
    return [run for run in runs if run.role == "teacher" and run.metrics is not None]


def students(runs: Sequence[RunView]) -> list[RunView]:
    """Students that were measured."""
    return [run for run in runs if run.role == "student" and run.metrics is not None]


def reference(view: ReportView) -> RunView | None:
    """Whom the students are measured against: a comparison's baseline, else the one teacher; None with several."""
    if view.comparison is not None:
        found = [run for run in view.runs if run.role == "student" and run.name == view.comparison.baseline]
    else:
        found = teachers(view.runs)
    return found[0] if len(found) == 1 and recall_by_class(found[0]) is not None else None


def deltas(own: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """Class by class what is more (or less) than the other; None where one of them was not measured."""
    return [None if a is None or b is None else a - b for a, b in zip(own, other, strict=True)]


def missing_reason(path: str, class_counts: Sequence[int], not_in_every_fold: Collection[str] = ()) -> str:
    """Why a group of a tested model has no metric.

    Args:
        path: the metric's path, such as ``groups.shots.few``.
        class_counts: (C,) training images of each class; empty where they are not known.
        not_in_every_fold: as in `RunView`.

    >>> [missing_reason(path, [300, 50, 40]) for path in ("groups.thirds.tail", "groups.shots.few")]
    ['no test image', 'no such class']
    """
    if path in not_in_every_fold:
        return "not in every fold"
    if not class_counts:
        return NOT_MEASURED
    return NO_CLASS if path in empty_groups(class_counts) else NO_IMAGE
