"""Which classes a student gained and lost, and against whom."""

from __future__ import annotations

from collections.abc import Sequence

from distail.report.views import ReportView, RunView, recall_by_class, teachers


def reference(view: ReportView) -> RunView | None:
    """Whom the students are measured against: a comparison's baseline, else the one teacher; None with several."""
    if view.comparison is not None:
        found = [run for run in view.runs if run.role == "student" and run.name == view.comparison.baseline]
    else:
        found = teachers(view.runs)
    return found[0] if len(found) == 1 and recall_by_class(found[0]) is not None else None


def difference(own: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """Class by class what is more (or less) than the other; None where one of them was not measured."""
    return [None if a is None or b is None else a - b for a, b in zip(own, other, strict=True)]
