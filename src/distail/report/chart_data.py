"""The numbers behind the charts: classes ranked by size, neighborhood means, curves, reliability, where errors go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from distail.evaluation.groups import SHOTS, THIRDS, shots, thirds
from distail.evaluation.headline import headline_path
from distail.evaluation.metrics import metric_at
from distail.evaluation.run_files import EpochRow
from distail.json_values import as_number, as_whole
from distail.report.differences import DifferenceData, difference_data
from distail.report.views import ReportView, RunView, Spread, missing_reason, recall_by_class, words_of

OUTCOMES = ("correct", "tail", "medium", "head")
OUTCOME_TITLES = {
    "correct": "right",
    "tail": "wrong, another tail class",
    "medium": "wrong, a medium class",
    "head": "wrong, a head class",
}
CONFUSIONS_SHOWN = 5
POINTS_UP_TO = 4000
"""With more points than this a chart draws the neighborhood means only: that many marks neither draw nor read well."""

Values = list[float | None]
Curve = list[tuple[int, float]]
"""Epochs, counted from 1, each with a value."""


@dataclass(frozen=True)
class RecallData:
    """Classes from most to fewest training images; for each run its recalls and their means, None without any."""

    names: list[str]
    counts: list[int]
    thirds: list[tuple[str, int, int]]
    """Each third that has classes, from its first rank up to, not including, the next third's."""
    window: int
    points: bool
    recalls: list[Values | None]
    means: list[Values | None]


@dataclass(frozen=True)
class GroupsData:
    """Mean recall of each group of classes, by run, with what to say where a group has none."""

    names: list[str]
    sizes: list[int]
    values: list[Values | None]
    stds: list[Values]
    missing: list[str]


@dataclass(frozen=True)
class CostPoint:
    """Balanced accuracy in percent, its standard deviation or 0, and what it cost."""

    cost: float
    accuracy: float
    std: float


@dataclass(frozen=True)
class ChartData:
    """Everything that charts draw, to four decimals; lists are by run."""

    recall: RecallData | None
    thirds: GroupsData
    shots: GroupsData
    loss: list[Curve]
    validation: list[Curve]
    flow: list[Values | None]
    """Where test images of tail classes end, in percent, in the order of `OUTCOMES`."""
    parameters: list[CostPoint | None]
    """Cost in millions of parameters."""
    latency: list[CostPoint | None]
    """Cost in milliseconds of one image."""
    differences: list[DifferenceData]


@dataclass(frozen=True)
class Confusion:
    """A class that wrong predictions of tail images name: how often (a mean over seeds), and its share in percent."""

    name: str
    count: int
    third: str
    errors: float
    share: float


def chart_data(view: ReportView) -> ChartData:
    """The numbers of every chart of a page."""
    runs, counts = view.runs, view.class_counts
    return ChartData(
        recall=recall_data(runs, view.class_names, counts),
        thirds=groups_data(runs, counts, "thirds"),
        shots=groups_data(runs, counts, "shots"),
        loss=curves(runs, lambda row: row.get("loss")),
        validation=curves(runs, validation_value),
        flow=[_tail_shares(run) for run in runs],
        parameters=cost_points(runs, lambda run: None if run.parameters is None else run.parameters / 1e6),
        latency=cost_points(runs, lambda run: run.latency),
        differences=difference_data(view),
    )


def class_order(class_counts: Sequence[int]) -> list[int]:
    """Class indices from most to fewest training images, ties by index, as the thirds are cut."""
    return sorted(range(len(class_counts)), key=lambda c: (-class_counts[c], c))


def neighborhood(classes: int) -> int:
    """How many neighboring classes a mean is taken over: an odd number near a tenth, 1 for up to 20 classes."""
    return 1 if classes <= 20 else 2 * round(classes / 20) + 1


def moving_mean(values: Sequence[float | None], window: int) -> Values:
    """The mean over a centered window, shorter at both ends and wherever a value is missing.

    >>> moving_mean([0.0, 3.0, None, 9.0], 3)
    [1.5, 1.5, 6.0, 9.0]
    """
    if window == 1:
        return list(values)
    half = window // 2
    sums = list(accumulate((value or 0.0 for value in values), initial=0.0))
    known = list(accumulate((value is not None for value in values), initial=0))
    spans = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[end] - sums[start]) / n if (n := known[end] - known[start]) else None for start, end in spans]


def rank_ticks(classes: int, most: int = 7) -> list[int]:
    """Ranks to label, evenly spread from the first to the last.

    >>> rank_ticks(100, 4)
    [0, 33, 66, 99]
    """
    steps = min(most, classes)
    return [0] if steps < 2 else [round(i * (classes - 1) / (steps - 1)) for i in range(steps)]


def recall_data(runs: Sequence[RunView], class_names: Sequence[str], class_counts: Sequence[int]) -> RecallData | None:
    """Recall of every class in order of size, and its neighborhood mean; None without classes or recalls."""
    by_class = [recall_by_class(run) for run in runs]
    measured = sum(recalls is not None for recalls in by_class)
    if not class_counts or not measured:
        return None
    order = class_order(class_counts)
    window = neighborhood(len(order))
    recalls = [None if recalls is None else _rounded([recalls[c] for c in order]) for recalls in by_class]
    cuts = [0, *accumulate(len(members) for members in thirds(class_counts).values())]
    return RecallData(
        names=[class_names[c] for c in order],
        counts=[class_counts[c] for c in order],
        thirds=[(name, cuts[i], cuts[i + 1]) for i, name in enumerate(THIRDS) if cuts[i] < cuts[i + 1]],
        window=window,
        points=len(order) * measured <= POINTS_UP_TO,
        recalls=recalls,
        means=[None if values is None else _rounded(moving_mean(values, window)) for values in recalls],
    )


def groups_data(runs: Sequence[RunView], class_counts: Sequence[int], grouping: str) -> GroupsData:
    """Mean recall of each group, with the number of classes in it and what to say where it has no recall."""
    sizes = {"thirds": thirds, "shots": shots}[grouping](class_counts) if class_counts else {}
    names = {"thirds": THIRDS, "shots": SHOTS}[grouping]
    paths = [f"groups.{grouping}.{name}" for name in names]
    in_some = {path for run in runs for path in run.not_in_every_fold}
    return GroupsData(
        names=list(names),
        sizes=[len(sizes.get(name, ())) for name in names],
        values=[
            None if run.metrics is None else _rounded([metric_at(run.metrics, path) for path in paths]) for run in runs
        ],
        stds=[_rounded([run.spreads.get(path, Spread()).std for path in paths]) for run in runs],
        missing=[missing_reason(path, class_counts, in_some) for path in paths],
    )


def curves(runs: Sequence[RunView], value: Callable[[EpochRow], float | None]) -> list[Curve]:
    """A curve of every run; rows without a finite value are left out."""
    return [_curve(run.history, value) for run in runs]


def validation_value(row: EpochRow) -> float | None:
    """Balanced accuracy, or mean average precision, on the validation split; else top-1."""
    validation = row.get("validation")
    if not isinstance(validation, dict):
        return None
    balanced = validation.get(headline_path(validation))
    return as_number(validation.get("top1") if balanced is None else balanced)


def cost_points(runs: Sequence[RunView], cost: Callable[[RunView], float | None]) -> list[CostPoint | None]:
    """Balanced accuracy of every run beside what it cost."""
    points: list[CostPoint | None] = []
    for run in runs:
        path = words_of([run]).headline_path
        spent, accuracy = cost(run), metric_at(run.metrics, path)
        if spent is None or accuracy is None:
            points.append(None)
        else:
            std = run.spreads.get(path, Spread()).std or 0.0
            points.append(CostPoint(round(spent, 4), round(accuracy, 4), round(std, 4)))
    return points


def flow_rows(run: RunView) -> list[tuple[str, Values]]:
    """A row for each third with test images: what becomes of them in percent, in the order of `OUTCOMES`."""
    flows = run.error_flow or {}
    return [(name, [flow[outcome] for outcome in OUTCOMES]) for name in THIRDS if (flow := flows.get(name)) is not None]


def top_confusions(view: ReportView, run: RunView) -> list[Confusion]:
    """The classes that most of the tail's errors name, largest first, ties by index."""
    named = [c for c, errors in enumerate(run.tail_errors) if errors]
    if not named:
        return []
    total = sum(run.tail_errors)
    third_of = {c: name for name, members in thirds(view.class_counts).items() for c in members}
    named.sort(key=lambda c: (-run.tail_errors[c], c))
    return [
        Confusion(
            name=view.class_names[c],
            count=view.class_counts[c],
            third=third_of[c],
            errors=run.tail_errors[c],
            share=100 * run.tail_errors[c] / total,
        )
        for c in named[:CONFUSIONS_SHOWN]
    ]


def _tail_shares(run: RunView) -> Values | None:
    shares = dict(flow_rows(run)).get("tail")
    return None if shares is None else _rounded(shares)


def _curve(history: Sequence[EpochRow], value: Callable[[EpochRow], float | None]) -> Curve:
    points = [(as_whole(row.get("epoch")), as_number(value(row))) for row in history]
    return [(epoch + 1, round(found, 4)) for epoch, found in points if epoch is not None and found is not None]


def _rounded(values: Sequence[float | None]) -> Values:
    # A file written by hand may hold infinite numbers, which neither JSON nor a chart can show.
    return [None if value is None or not math.isfinite(value) else round(value, 4) for value in values]
