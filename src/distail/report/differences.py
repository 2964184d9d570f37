"""What sets each method apart from the baseline, as tables and as a chart of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distail.evaluation.groups import TAIL
from distail.evaluation.headline import BALANCED_ACCURACY, MEAN_AVERAGE_PRECISION
from distail.evaluation.metrics import METRICS
from distail.evaluation.significance import MORE_THAN_NOISE, NOISE, NOT_KNOWN, OVER_IMAGES, Difference
from distail.report.numbers import signed
from distail.report.views import ReportView

DRAWN = (BALANCED_ACCURACY, MEAN_AVERAGE_PRECISION, TAIL)


@dataclass(frozen=True)
class DifferenceRow:
    """A run's difference to the baseline in points, its interval if there is one, and why it is not told from noise."""

    run: int
    value: float
    interval: tuple[float, float] | None
    doubt: str


@dataclass(frozen=True)
class DifferenceData:
    """The differences in one metric."""

    title: str
    rows: list[DifferenceRow]


@dataclass(frozen=True)
class DifferenceCell:
    """One cell of a table of differences, in words."""

    text: str = "not compared"
    interval: str | None = None
    doubt: str = ""
    p: str | None = None
    missing: bool = True


@dataclass(frozen=True)
class DifferenceTable:
    """A row a method, a column a metric; ``how`` says over what they were paired, ``against`` what is subtracted."""

    against: str
    how: str
    columns: list[str]
    rows: list[tuple[str, list[DifferenceCell]]]


def difference_tables(view: ReportView) -> list[DifferenceTable]:
    """One table for each way of pairing (seeds, test images): against the baseline, and against what is adjusted."""
    if view.comparison is None:
        return []
    families = [(view.comparison.baseline, view.comparison.differences), *view.comparison.beyond_adjusting.items()]
    return [_table(against, family, over) for against, family in families for over in _ways(family)]


def difference_data(view: ReportView) -> list[DifferenceData]:
    """The charts: for each drawn metric every method's difference with its interval, paired as the first table is.

    With each stands why it is not told from noise, or nothing: noise is what any way of pairing calls so.
    """
    if view.comparison is None or not view.comparison.differences:
        return []
    found = view.comparison.differences
    over = _ways(found)[0]
    doubts = _doubts(found)
    position = {run.name: i for i, run in enumerate(view.runs)}
    charts = []
    for name in DRAWN:
        items = [item for item in found if item.over == over and item.metric == name and item.method in position]
        rows = [
            DifferenceRow(position[item.method], item.difference, item.interval, doubts[item.method, name])
            for item in items
        ]
        if rows:
            charts.append(DifferenceData(METRICS[name].title, rows))
    return charts


def _ways(found: Sequence[Difference]) -> list[str]:
    """Those that say how sure a difference is, test images first; where none does, as over one seed, the first."""
    ways = list(dict.fromkeys(item.over for item in found))
    telling = [over for over in ways if any(item.over == over and item.interval is not None for item in found)]
    return sorted(telling, key=lambda over: over != OVER_IMAGES) or ways[:1]


def _doubt(item: Difference) -> str:
    """Why a difference is not told from noise; empty where it is."""
    return "" if item.verdict == MORE_THAN_NOISE else item.verdict


def _doubts(found: Sequence[Difference]) -> dict[tuple[str, str], str]:
    """By method and metric: noise where any way of pairing says so, else what some way knows, else why none does."""
    doubts: dict[tuple[str, str], str] = {}
    for item in sorted(found, key=lambda item: item.over != OVER_IMAGES):
        key, doubt = (item.method, item.metric), _doubt(item)
        before = doubts.get(key, NOT_KNOWN)
        doubts[key] = doubt if doubt == NOISE or before not in ("", NOISE) else before
    return doubts


def _table(against: str, family: Sequence[Difference], over: str) -> DifferenceTable:
    found = [item for item in family if item.over == over]
    metrics = [name for name in METRICS if any(item.metric == name for item in found)]
    cells = {(item.method, item.metric): _cell(item, _doubt(item)) for item in found}
    methods = dict.fromkeys(item.method for item in found)
    return DifferenceTable(
        against=against,
        how=f"paired over {over}",
        columns=[METRICS[name].title for name in metrics],
        rows=[(method, [cells.get((method, name), DifferenceCell()) for name in metrics]) for method in methods],
    )


def _cell(item: Difference, doubt: str) -> DifferenceCell:
    return DifferenceCell(
        text=signed(item.difference),
        interval=None if item.interval is None else f"{signed(item.interval[0])} to {signed(item.interval[1])}",
        doubt=doubt,
        p=None if item.p_corrected is None else f"p {_probability(item.p_corrected)}",
        missing=False,
    )


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
