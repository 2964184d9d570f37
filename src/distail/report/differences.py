"""What sets each method apart from the baseline, as tables and as a chart of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distail.evaluation.metrics import METRICS
from distail.evaluation.significance import OVER_IMAGES, OVER_SEEDS, Difference, seeds_can_tell
from distail.report.views import ReportView

NOISE, TOO_FEW_SEEDS = "inside the noise", "too few seeds to tell"
NOT_KNOWN, NOT_TESTED = "not known", "not tested"
DRAWN = ("balanced_accuracy", "groups.thirds.tail")


def difference_tables(view: ReportView) -> list[dict[str, Any]]:
    """One table for each way of pairing (seeds, test images): a row a method, a column a figure."""
    if view.comparison is None:
        return []
    found = view.comparison.differences
    return [_table(view, [item for item in found if item.over == over], over) for over in _ways(found)]


def difference_data(view: ReportView) -> list[dict[str, Any]]:
    """The charts: for each drawn figure every method's difference with its interval, paired as the first table is.

    With each stands why it is not told from noise, or nothing: noise is what any way of pairing calls so.
    """
    if view.comparison is None or not view.comparison.differences:
        return []
    found = view.comparison.differences
    over = _ways(found)[0]
    doubts = _doubts(view, found)
    position = {run.name: i for i, run in enumerate(view.runs)}
    return [
        {
            "figure": name,
            "title": METRICS[name].title,
            "rows": [
                [position[item.method], item.difference, *(item.interval or (None, None)), doubts[item.method, name]]
                for item in found
                if item.over == over and item.metric == name and item.method in position
            ],
        }
        for name in DRAWN
        if any(item.over == over and item.metric == name and item.method in position for item in found)
    ]


def signed(value: float, digits: int = 1) -> str:
    """With its sign, a typographic minus, and no negative zero.

    >>> signed(-0.04), signed(-1.25), signed(2)
    ('+0.0', '−1.2', '+2.0')
    """
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def describe_differences(chart: dict[str, Any], names: Sequence[str], baseline: str) -> str:
    """A chart of differences in words."""
    parts = [
        f"{names[run]} {signed(value)}"
        + ("" if low is None else f" (interval {signed(low)} to {signed(high)})")
        + (f", {doubt}" if doubt else "")
        for run, value, low, high, doubt in chart["rows"]
    ]
    return f"{chart['title']}, points more or less than {baseline}: {'; '.join(parts)}."


def _ways(found: Sequence[Difference]) -> list[str]:
    """Those that say how sure a difference is, test images first; where none does, as over one seed, the first."""
    ways = list(dict.fromkeys(item.over for item in found))
    telling = [over for over in ways if any(item.over == over and item.interval is not None for item in found)]
    return sorted(telling, key=lambda over: over != OVER_IMAGES) or ways[:1]


def _doubt(view: ReportView, item: Difference) -> str:
    """Why a difference is not told from noise; empty where it is."""
    assert view.comparison is not None
    if item.p_corrected is None:
        return NOT_KNOWN if item.p is None else NOT_TESTED
    if not item.inside_noise:
        return ""
    if item.over == OVER_SEEDS:
        tests = sum(each.over == OVER_SEEDS and each.p_corrected is not None for each in view.comparison.differences)
        if not seeds_can_tell(len(view.comparison.seeds), tests):
            return TOO_FEW_SEEDS
    return NOISE


def _doubts(view: ReportView, found: Sequence[Difference]) -> dict[tuple[str, str], str]:
    """By method and metric: noise where any way of pairing says so, else what some way knows, else why none does."""
    doubts: dict[tuple[str, str], str] = {}
    for item in sorted(found, key=lambda item: item.over != OVER_IMAGES):
        key, doubt = (item.method, item.metric), _doubt(view, item)
        before = doubts.get(key, NOT_KNOWN)
        doubts[key] = doubt if doubt == NOISE or before not in ("", NOISE) else before
    return doubts


def _table(view: ReportView, found: Sequence[Difference], over: str) -> dict[str, Any]:
    assert view.comparison is not None
    figures = [name for name in METRICS if any(item.metric == name for item in found)]
    cells = {(item.method, item.metric): item for item in found}
    return {
        "how": f"paired over {over}",
        "columns": [METRICS[name].title for name in figures],
        "rows": [
            (method, [_cell(view, cells.get((method, name))) for name in figures])
            for method in dict.fromkeys(item.method for item in found)
        ],
    }


def _cell(view: ReportView, item: Difference | None) -> dict[str, Any]:
    if item is None:
        return {"value": None, "text": "not compared", "interval": None, "doubt": "", "p": None}
    return {
        "value": item.difference,
        "text": signed(item.difference),
        "interval": None if item.interval is None else f"{signed(item.interval[0])} to {signed(item.interval[1])}",
        "doubt": _doubt(view, item),
        "p": None if item.p_corrected is None else f"p {_probability(item.p_corrected)}",
    }


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
