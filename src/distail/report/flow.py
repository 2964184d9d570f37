"""Where the images of a group end: right, or taken for a class of the head, the medium or the tail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distail.evaluation.groups import THIRDS, thirds
from distail.report.views import ReportView, RunView

OUTCOMES = ("correct", "tail", "medium", "head")
OUTCOME_TITLES = {
    "correct": "right",
    "tail": "wrong, another tail class",
    "medium": "wrong, a medium class",
    "head": "wrong, a head class",
}
SWALLOWERS_SHOWN = 5


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
