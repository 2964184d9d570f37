"""What sets each method apart from the baseline, as tables and as a chart of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distail.evaluation.metrics import METRICS
from distail.evaluation.significance import Difference
from distail.report.views import ReportView

DRAWN = ("balanced_accuracy", "groups.thirds.tail")


def difference_tables(view: ReportView) -> list[dict[str, Any]]:
    """One table for each way of pairing (seeds, test images): a row a method, a column a figure."""
    if view.comparison is None:
        return []
    found = view.comparison.differences
    return [_table(view, [item for item in found if item.over == over], over) for over in _ways(found)]


def difference_data(view: ReportView) -> list[dict[str, Any]]:
    """The charts: for each drawn figure every method's difference with its interval, paired as the first table is.

    Noise is what any way of pairing calls so.
    """
    if view.comparison is None or not view.comparison.differences:
        return []
    found = view.comparison.differences
    over = _ways(found)[0]
    noise = {(item.method, item.metric) for item in found if _is_noise(item)}
    position = {run.name: i for i, run in enumerate(view.runs)}
    return [
        {
            "figure": name,
            "title": METRICS[name].title,
            "rows": [
                [position[item.method], item.difference, *(item.interval or (None, None)), (item.method, name) in noise]
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
        + (", inside the noise" if noise else "")
        for run, value, low, high, noise in chart["rows"]
    ]
    return f"{chart['title']}, points more or less than {baseline}: {'; '.join(parts)}."


def _ways(found: Sequence[Difference]) -> list[str]:
    """Those that say how sure a difference is; where none does, such as over one seed, the first."""
    ways = list(dict.fromkeys(item.over for item in found))
    telling = [over for over in ways if any(item.over == over and item.interval is not None for item in found)]
    return telling or ways[:1]


def _is_noise(item: Difference) -> bool:
    return item.inside_noise and item.p_corrected is not None


def _table(view: ReportView, found: Sequence[Difference], over: str) -> dict[str, Any]:
    assert view.comparison is not None
    figures = [name for name in METRICS if any(item.metric == name for item in found)]
    cells = {(item.method, item.metric): item for item in found}
    return {
        "how": f"paired over {over}",
        "columns": [METRICS[name].title for name in figures],
        "rows": [
            (method, [_cell(cells.get((method, name))) for name in figures])
            for method in dict.fromkeys(item.method for item in found)
        ],
    }


def _cell(item: Difference | None) -> dict[str, Any]:
    if item is None:
        return {"value": None, "text": "not compared", "interval": None, "noise": False, "p": None}
    return {
        "value": item.difference,
        "text": signed(item.difference),
        "interval": None if item.interval is None else f"{signed(item.interval[0])} to {signed(item.interval[1])}",
        "noise": _is_noise(item),
        "p": None if item.p_corrected is None else f"p {_probability(item.p_corrected)}",
    }


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
