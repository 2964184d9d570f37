"""The numbers behind the charts: classes ranked by size, neighbourhood means, curves, reliability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from distail.evaluation.groups import SHOTS, THIRDS, shots, thirds
from distail.evaluation.metrics import metric_at
from distail.json_values import as_number, as_whole
from distail.report.differences import difference_data
from distail.report.views import ReportView, RunView, Spread, recall_by_class, unmeasured_group

OUTCOMES = ("correct", "tail", "medium", "head")
OUTCOME_TITLES = {
    "correct": "right",
    "tail": "wrong, another tail class",
    "medium": "wrong, a medium class",
    "head": "wrong, a head class",
}
SWALLOWERS_SHOWN = 5
POINTS_UP_TO = 4000
"""With more points than this a chart draws the neighbourhood means only: that many marks neither draw nor read well."""


def flow_data(runs: Sequence[RunView]) -> dict[str, Any]:
    """The tail's outcomes of every run in percent, ready for the chart; None where nothing is known."""
    return {
        "outcomes": list(OUTCOMES),
        "titles": [OUTCOME_TITLES[name] for name in OUTCOMES],
        "tail": [None if (flow := tail_flow(run)) is None else [flow[name] for name in OUTCOMES] for run in runs],
    }


def tail_flow(run: RunView) -> dict[str, float | None] | None:
    """What becomes of the tail's test images; None without predictions or without tail images."""
    flow = None if run.error_flow is None else run.error_flow.get("tail")
    return None if flow is None else dict(flow)


def flow_rows(run: RunView) -> list[tuple[str, list[float | None]]]:
    """A row for each third with test images: outcomes in percent, in the order of `OUTCOMES`."""
    found = [(name, None if run.error_flow is None else run.error_flow.get(name)) for name in THIRDS]
    return [(name, [flow[outcome] for outcome in OUTCOMES]) for name, flow in found if flow is not None]


def swallowers(view: ReportView, run: RunView) -> list[dict[str, Any]]:
    """The classes that most of the tail's errors name, largest first, ties by index; errors are means over seeds."""
    total = sum(run.tail_errors)
    if not total:
        return []
    third_of = {c: name for name, members in thirds(view.class_counts).items() for c in members}
    order = sorted(range(len(run.tail_errors)), key=lambda c: (-run.tail_errors[c], c))[:SWALLOWERS_SHOWN]
    return [
        {
            "name": view.class_names[c],
            "count": view.class_counts[c],
            "third": third_of[c],
            "errors": run.tail_errors[c],
            "share": 100 * run.tail_errors[c] / total,
        }
        for c in order
        if run.tail_errors[c]
    ]


def describe_flow(runs: Sequence[RunView]) -> str | None:
    """Where tail images end, in words."""
    parts = []
    for run in runs:
        flow = tail_flow(run)
        if flow is not None:
            told = [f"{flow[name]:.1f} % {OUTCOME_TITLES[name]}" for name in OUTCOMES if flow[name] is not None]
            parts.append(f"{run.name}: {', '.join(told)}")
    return f"Test images of tail classes. {'; '.join(parts)}." if parts else None


def class_order(class_counts: Sequence[int]) -> list[int]:
    """Class indices from most to fewest training images, ties by index, as the thirds are cut."""
    return sorted(range(len(class_counts)), key=lambda c: (-class_counts[c], c))


def neighbourhood(classes: int) -> int:
    """How many neighbouring classes a mean is taken over: an odd number near a tenth, 1 for up to 20 classes."""
    return 1 if classes <= 20 else 2 * round(classes / 20) + 1


def moving_mean(values: Sequence[float | None], window: int) -> list[float | None]:
    """The mean over a centred window, shorter at both ends and wherever a value is missing.

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


def chart_data(view: ReportView) -> dict[str, Any]:
    """Everything the page's script draws, ready for JSON, numbers to four decimals."""
    runs, class_names, class_counts = view.runs, view.class_names, view.class_counts
    data = {
        "runs": [{"name": run.name, "role": run.role} for run in runs],
        "recall": recall_data(runs, class_names, class_counts),
        "groups": {name: groups_data(runs, class_counts, name) for name in ("thirds", "shots")},
        "loss": curves(runs, lambda row: row.get("loss")),
        "validation": curves(runs, validation_value),
        "reliability": [
            [[item.confidence, item.accuracy, item.count] for item in run.reliability if item.count] for run in runs
        ],
        "differences": difference_data(view),
        "flow": flow_data(runs),
        "cost": cost_data(runs),
    }
    return {name: _rounded(part) for name, part in data.items()}


def recall_data(
    runs: Sequence[RunView], class_names: Sequence[str], class_counts: Sequence[int]
) -> dict[str, Any] | None:
    """Recall of every class in order of size, and its neighbourhood mean; None without classes or figures."""
    by_class = [recall_by_class(run) for run in runs]
    measured = sum(recalls is not None for recalls in by_class)
    if not class_counts or not measured:
        return None
    order = class_order(class_counts)
    window = neighbourhood(len(order))
    recalls = [None if recalls is None else [recalls[c] for c in order] for recalls in by_class]
    groups = thirds(class_counts)
    return {
        "names": [class_names[c] for c in order],
        "counts": [class_counts[c] for c in order],
        "cuts": [len(groups["head"]), len(groups["head"]) + len(groups["medium"])],
        "window": window,
        "points": len(order) * measured <= POINTS_UP_TO,
        "ticks": {"wide": rank_ticks(len(order), 12 if len(order) <= 12 else 9), "narrow": rank_ticks(len(order), 5)},
        "recalls": recalls,
        "means": [None if values is None else moving_mean(values, window) for values in recalls],
    }


def groups_data(runs: Sequence[RunView], class_counts: Sequence[int], grouping: str) -> dict[str, Any]:
    """Mean recall of each group, with the number of classes in it and what to say where it has no recall."""
    sizes = {"thirds": thirds, "shots": shots}[grouping](class_counts) if class_counts else {}
    names = {"thirds": THIRDS, "shots": SHOTS}[grouping]
    return {
        "names": list(names),
        "sizes": [len(members) for members in sizes.values()],
        "values": [None if run.metrics is None else list(run.metrics["groups"][grouping].values()) for run in runs],
        "missing": [unmeasured_group(f"groups.{grouping}.{name}", class_counts) for name in names],
        "deviations": [[run.spreads.get(f"groups.{grouping}.{name}", Spread()).std for name in names] for run in runs],
    }


def curves(runs: Sequence[RunView], value: Callable[[Mapping[str, Any]], Any]) -> list[list[list[float]]]:
    """[epoch, value] of every run, epochs counted from 1; rows without a finite value are left out."""
    return [
        [
            [epoch + 1, found]
            for row in run.history
            if (epoch := as_whole(row.get("epoch"))) is not None and (found := as_number(value(row))) is not None
        ]
        for run in runs
    ]


def cost_data(runs: Sequence[RunView]) -> dict[str, list[list[float] | None]]:
    """[cost, balanced accuracy, its deviation or 0] of every run, by parameters in millions and by seconds."""

    def points(cost: Callable[[RunView], float | None]) -> list[list[float] | None]:
        return [
            None
            if (spent := cost(run)) is None or (accuracy := metric_at(run.metrics, "balanced_accuracy")) is None
            else [spent, accuracy, run.spreads.get("balanced_accuracy", Spread()).std or 0.0]
            for run in runs
        ]

    return {
        "parameters": points(lambda run: None if run.parameters is None else run.parameters / 1e6),
        "seconds": points(lambda run: run.seconds),
    }


def validation_value(row: Mapping[str, Any]) -> Any:
    """Balanced accuracy on the validation split, else top-1."""
    validation = row.get("validation")
    if not isinstance(validation, Mapping):
        return None
    balanced = validation.get("balanced_accuracy")
    return validation.get("top1") if balanced is None else balanced


def _rounded(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {name: _rounded(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    return round(data, 4) if isinstance(data, float) else data
