"""What `comparison.json` holds: a contract, whose changes raise `SCHEMA_VERSION`."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from distail.evaluation.significance import Difference, Summary

SCHEMA_VERSION = 1


class RunContent(TypedDict):
    """How a run stands: `finished`, `failed` or `missing`, why, and how long its student trained.

    `fold` is the part of the training data that it holds out, where validation goes by folds.
    """

    folder: str
    state: str
    problem: str | None
    seconds: float | None
    fold: NotRequired[int]


class MethodRunContent(RunContent):
    """A compared method's run; a method with a grid is named with the point that was chosen."""

    method: str
    seed: int


class TeacherRunContent(RunContent):
    """A teacher's run, with the supervised term that it was trained with."""

    supervised: str
    seed: int


class PointRunContent(RunContent):
    """A grid point's run."""

    seed: int


class MetricContent(TypedDict):
    """A metric over the seeds of one method, in percent.

    Attributes:
        not_in_every_fold: there, and true, where some folds alone have it: a group has no class in the others.
    """

    values: dict[int, float]
    mean: float | None
    deviation: float | None
    interval: tuple[float, float] | None
    not_in_every_fold: NotRequired[bool]


class DifferenceContent(TypedDict):
    """A method's metric minus the baseline's; see `distail.evaluation.significance.Difference`.

    Files of before `seeds` and `verdict` came into being lack both.
    """

    method: str
    figure: str
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    p_corrected: float | None
    over: str
    inside_noise: bool
    seeds: int
    verdict: str


class BeyondContent(DifferenceContent):
    """A row's metric minus that of `against`, a row that was only adjusted after training."""

    against: str


class PointContent(TypedDict):
    """A grid point with its validation metric by seed."""

    method: str
    label: str
    settings: dict[str, object]
    runs: list[PointRunContent]
    validation: dict[str, float]
    mean: float | None
    chosen: bool


class GridContent(TypedDict):
    """A grid: its axes, by which rule a point is chosen, and all points."""

    axes: dict[str, list[object]]
    rule: str
    points: list[PointContent]


class FoldsContent(TypedDict):
    """What `comparison.json` has more where validation goes by folds.

    Attributes:
        folds: into how many the training data goes; every figure is then of a seed the mean over them.
        out_of_fold: as `figures`, of the methods alone and of the training examples: each judged by the student that
            held it out.
    """

    folds: NotRequired[int]
    out_of_fold: NotRequired[dict[str, dict[str, MetricContent]]]


class ComparisonContent(FoldsContent):
    """The whole file.

    Attributes:
        figures: a row's label and a metric's path to the metric over seeds. Rows are the teachers, the methods, and
            those of both that are adjusted after training as well, named "LABEL, adjusted".
        taus: of rows that are adjusted, by seed how far.
        differences: every method against the baseline.
        beyond_adjusting: every row of a student against what costs nothing: the method `ce` adjusted, and the teacher
            adjusted; p values are corrected for each of the two by itself.
    """

    schema_version: int
    name: str
    class_names: list[str]
    class_counts: list[int]
    subset_sha256: dict[str, str]
    seeds: list[int]
    methods: list[str]
    baseline: str
    teachers: str
    runs: list[MethodRunContent]
    teacher_runs: list[TeacherRunContent]
    figures: dict[str, dict[str, MetricContent]]
    taus: dict[str, dict[int, float]]
    differences: list[DifferenceContent]
    beyond_adjusting: list[BeyondContent]
    grid: GridContent | None
    statements: list[str]


def metric_content(summary: Summary) -> MetricContent:
    """A metric over seeds as it stands in the file."""
    return {
        "values": summary.values,
        "mean": summary.mean,
        "deviation": summary.std,
        "interval": summary.interval,
    }


def difference_content(difference: Difference) -> DifferenceContent:
    """A difference as it stands in the file."""
    return {
        "method": difference.method,
        "figure": difference.metric,
        "difference": difference.difference,
        "interval": difference.interval,
        "p": difference.p,
        "p_corrected": difference.p_corrected,
        "over": difference.over,
        "inside_noise": difference.inside_noise,
        "seeds": difference.seeds,
        "verdict": difference.verdict,
    }
