"""The sentences of a report, written from its numbers: the summary and what each chart shows, for those who listen."""

from __future__ import annotations

from collections.abc import Sequence

from distail.errors import counted, enumerated
from distail.evaluation.adjustment import TAU
from distail.evaluation.groups import TAIL
from distail.evaluation.headline import BALANCED_ACCURACY, MAP, MEAN_AVERAGE_PRECISION
from distail.evaluation.metrics import metric_at
from distail.report.chart_data import OUTCOME_TITLES, OUTCOMES, CostPoint, Curve, GroupsData, RecallData, Values
from distail.report.differences import DifferenceData
from distail.report.numbers import signed
from distail.report.views import ComparisonView, ReportView, RunView, capital, students, teachers, words_of


def summary_sentence(view: ReportView) -> str:
    """The result in one sentence.

    >>> summary_sentence(ReportView("begun"))
    'There are no test metrics yet.'
    """
    taught, teaching, words = students(view.runs), teachers(view.runs), words_of(view.runs)
    if not taught:
        return "There are no test metrics yet."
    if view.comparison is not None:
        asked = sum(run.role == "student" for run in view.runs)
        return _compared(view.comparison, len(taught), asked, any(run.role == "teacher" for run in view.runs))
    against = teaching[0] if len(teaching) == 1 else None
    if len(taught) == 1:
        names = ("top1", BALANCED_ACCURACY, TAIL) if not words.multi_label else (words.headline_path, TAIL)
        parts = [_reaches(taught[0], name, against, first=name == names[0]) for name in names]
        known = [part for part in parts if part]
        return f"{taught[0].name} reaches {enumerated(known)}."
    best, balanced = _highest(taught, words.headline_path)
    has = "has" if len(best) == 1 else "have"
    sentence = f"Of {len(taught)} students {enumerated(best)} {has} the highest {words.headline}, {balanced:.1f} %"
    tail, share = _highest(taught, TAIL)
    if tail:
        who = "" if tail == best else f"{enumerated(tail)} "
        sentence += f", and {who}the highest {words.by_class} on the tail third, {share:.1f} %"
    if against is not None:
        own = [part for part in (_plain(against, name) for name in (words.headline_path, TAIL)) if part]
        sentence += f"; the teacher has {' and '.join(own)}"
    return f"{sentence}."


def _compared(comparison: ComparisonView, measured: int, asked: int, with_teacher: bool) -> str:
    seeds = len(comparison.seeds)
    many = f"{measured} of {asked} methods" if measured < asked else counted(asked, "method")
    each = "one seed" if seeds == 1 else f"{seeds} seeds"
    how = ", all with the same teacher" if comparison.teachers == "shared" else ", each with its own teacher"
    of_a_seed = " of a seed" if seeds > 1 else ""
    against = f" The others are compared with {comparison.baseline}." if comparison.baseline and asked > 1 else ""
    return f"{many}, {each}{how + of_a_seed if with_teacher else ''}.{against}"


def noise_note(view: ReportView) -> str | None:
    """What a single run can and cannot prove, with the sampling error of the test set where its size is known.

    The distance is that from top-1 to the farther end of its 95 % interval, of the student where that is longest.
    """
    taught = students(view.runs)
    if not taught or any(len(run.seeds) > 1 for run in taught):
        return None
    note = "One seed each: half a point is normal noise between seeds"
    if words_of(view.runs).multi_label:
        return "One seed each: others may differ by several points, and by more where few test examples have a class."
    known = [(run, share) for run in taught if (share := metric_at(run.metrics, "top1")) is not None]
    images_of = len(view.test_labels)  # bins of several folds count every image once in each
    sizes = [(images_of or sum(item.count for item in run.reliability), share / 100) for run, share in known]
    # A file written by hand may hold anything: there is no interval around a share that is none.
    widths = [(100 * _reach(share, images), images) for images, share in sizes if images and 0 <= share <= 1]
    if widths:
        width, images = max(widths)
        note += f", and {images:,} test images tell top-1 to within {width:.1f} points (95 %), single groups less well"
    return f"{note}."


def _reach(share: float, images: int) -> float:
    """How far the 95 % interval of a share goes: Wilson's, which no share, not even of 0 or 1, makes a point."""
    from scipy.stats import binomtest

    ends = binomtest(round(share * images), images).proportion_ci(0.95, method="wilson")
    return max(share - float(ends.low), float(ends.high) - share)


def describe_recall(runs: Sequence[RunView], data: RecallData) -> str:
    """The per-class chart in words."""
    parts = []
    for run, means in zip(runs, data.means, strict=True):
        ends = [value for value in (means or []) if value is not None]
        if ends:
            tested = " that has test images" if means and None in (means[0], means[-1]) else ""
            of_ends = f"{ends[0]:.0f} % for the largest to {ends[-1]:.0f} % for the smallest"
            parts.append(f"{run.name} from {of_ends}{tested}")
    how = f"Mean over {data.window} neighboring classes: " if data.window > 1 else ""
    return (
        f"{capital(words_of(runs).by_class)} of {len(data.counts)} classes, from {data.counts[0]:,} down to "
        f"{data.counts[-1]:,} training images. {how}{'; '.join(parts)}."
    )


def describe_groups(runs: Sequence[RunView], data: GroupsData) -> str:
    """The bars of one grouping in words."""
    parts = []
    for run, values in zip(runs, data.values, strict=True):
        if values is not None:
            groups = zip(data.names, values, data.missing, strict=True)
            told = [f"{name} {missing if value is None else f'{value:.1f} %'}" for name, value, missing in groups]
            parts.append(f"{run.name}: {', '.join(told)}")
    return f"Mean {words_of(runs).by_class} by group. {'; '.join(parts)}."


def describe_flow(runs: Sequence[RunView], flows: Sequence[Values | None]) -> str:
    """Where tail images end, in words."""
    parts = []
    for run, flow in zip(runs, flows, strict=True):
        if flow is not None:
            shares = zip(OUTCOMES, flow, strict=True)
            told = [f"{share:.1f} % {OUTCOME_TITLES[name]}" for name, share in shares if share is not None]
            parts.append(f"{run.name}: {', '.join(told)}")
    return f"Test images of tail classes. {'; '.join(parts)}."


def describe_differences(runs: Sequence[RunView], data: DifferenceData, baseline: str) -> str:
    """A chart of differences in words."""
    parts = []
    for row in data.rows:
        between = "" if row.interval is None else f" (interval {signed(row.interval[0])} to {signed(row.interval[1])})"
        doubt = f", {row.doubt}" if row.doubt else ""
        parts.append(f"{runs[row.run].name} {signed(row.value)}{between}{doubt}")
    return f"{data.title}, points more or less than {baseline}: {'; '.join(parts)}."


def describe_curves(runs: Sequence[RunView], curves: Sequence[Curve], what: str, unit: str) -> str:
    """Training curves in words: where each began and ended."""
    parts = [
        f"{run.name} from {points[0][1]:.2f}{unit} in epoch {points[0][0]} "
        f"to {points[-1][1]:.2f}{unit} in epoch {points[-1][0]}"
        for run, points in zip(runs, curves, strict=True)
        if points
    ]
    return f"{what} by epoch: {'; '.join(parts)}."


def describe_cost(runs: Sequence[RunView], points: Sequence[CostPoint | None], what: str) -> str:
    """The headline metric against a cost in words."""
    parts = []
    for run, point in zip(runs, points, strict=True):
        if point is not None:
            cost = f"{point.cost:,.{0 if point.cost >= 100 else 2}f}"
            parts.append(f"{run.name} {point.accuracy:.1f} % with {cost} {what}")
    return f"{capital(words_of(runs).headline)}: {'; '.join(parts)}."


def describe_reliability(runs: Sequence[RunView]) -> str:
    """The reliability diagram in words."""
    parts = []
    for run in runs:
        total = sum(item.count for item in run.reliability)
        if total:
            sums = [(item.count, item.confidence or 0.0, item.accuracy or 0.0) for item in run.reliability]
            confidence = 100 * sum(count * value for count, value, _ in sums) / total
            accuracy = 100 * sum(count * value for count, _, value in sums) / total
            parts.append(f"{run.name} is {confidence:.1f} % confident and {accuracy:.1f} % right on average")
    return f"Accuracy against confidence in 15 bins: {'; '.join(parts)}."


_NAMES = {
    "top1": "top-1",
    BALANCED_ACCURACY: "balanced accuracy",
    TAIL: "on the tail third",
    MEAN_AVERAGE_PRECISION: MAP,
}


def _value(run: RunView, name: str) -> float | None:
    return metric_at(run.metrics, name)


def _highest(runs: Sequence[RunView], name: str) -> tuple[list[str], float]:
    """Which of the runs, as they are and adjusted, have the highest metric as it is written, and that; else none."""
    values = {run.name: _value(run, name) for run in runs}
    for run in runs:
        if run.adjusted is not None:
            tau = "" if run.adjusted.tau == TAU else f" (tau {run.adjusted.tau:g})"
            values[f"{run.name} adjusted after training{tau}"] = metric_at(run.adjusted.metrics, name)
    written = {who: round(value, 1) for who, value in values.items() if value is not None}
    most = max(written.values(), default=0.0)
    return [who for who, value in written.items() if value == most], most


def _plain(run: RunView, name: str) -> str:
    value = _value(run, name)
    return "" if value is None else f"{value:.1f} % {_NAMES[name]}"


def _reaches(run: RunView, name: str, against: RunView | None, *, first: bool) -> str:
    own, other = _plain(run, name), None if against is None else _value(against, name)
    whose = "its teacher " if first else ""
    return own if not own or other is None else f"{own} ({whose}{other:.1f} %)"
