"""Every picture of a report, described once: pages and files are drawn from the same Vega-Lite."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distail.report import captions
from distail.report.chart_data import ChartData, CostPoint, Curve
from distail.report.class_charts import flow_chart, group_chart, recall_chart
from distail.report.differences import DifferenceData
from distail.report.numbers import signed
from distail.report.vega import (
    IF_SHOWN,
    PAPER,
    SHORT_NAME,
    SOFT,
    SPARSE,
    Chart,
    Spec,
    hover_bands,
    hover_nearest,
    layer,
    lines,
    marks_of,
    percent,
    quantity,
    row_of_run,
    told,
    whiskers,
)
from distail.report.views import ReportView, RunView, capital, words_of


def charts_of(view: ReportView, data: ChartData) -> dict[str, Chart]:
    """The charts that the view has numbers for, by name."""
    runs = view.runs
    charts: dict[str, Chart] = {}
    for i, item in enumerate(data.differences):
        charts[f"difference-{i}"] = difference_chart(runs, item, view.comparison.baseline if view.comparison else "")
    if data.recall is not None:
        charts["recall"] = recall_chart(runs, data.recall)
    if any(run.metrics is not None for run in runs):
        charts |= {"thirds": group_chart(runs, data.thirds), "shots": group_chart(runs, data.shots)}
    if any(data.flow):
        charts["flow"] = flow_chart(runs, data.flow)
    if any(data.parameters):
        charts["cost-parameters"] = cost_chart(runs, data.parameters, "parameters, millions", "million parameters")
    if any(data.latency):
        charts["cost-latency"] = cost_chart(runs, data.latency, "milliseconds per image", "milliseconds per image")
    if any(data.loss):
        charts["loss"] = curve_chart(runs, data.loss, "Training loss", "loss")
    if any(data.validation):
        name = words_of(runs).headline
        what = f"{capital(name)} on the validation split"
        charts["validation"] = curve_chart(runs, data.validation, what, name, " %")
    if any(item.count for run in runs for item in run.reliability):
        charts["reliability"] = reliability_chart(runs)
    return charts


def difference_chart(runs: Sequence[RunView], data: DifferenceData, baseline: str) -> Chart:
    """The methods below one another, each with its difference to the baseline and the interval around it."""
    rows: list[Spec] = []
    pointed: list[Spec] = []
    for row in data.rows:
        low, high = row.interval or (None, None)
        rows.append({"run": row.run, "value": row.value, "low": low, "high": high, "doubt": row.doubt})
        between = "no interval" if low is None or high is None else f"95 % interval {signed(low)} to {signed(high)}"
        detail = between + (f", {row.doubt}" if row.doubt else "")
        pointed.append(told(runs[row.run].name, detail, [(row.run, signed(row.value))], run=row.run))
    ends = [abs(end) for row in data.rows for end in (row.value, *(row.interval or ()))]
    reach = 1.05 * max(0.5, *ends)
    axis: Spec = {"labelExpr": "(datum.value > 0 ? '+' : '') + datum.label", "tickCount": 6, **SPARSE}

    def x(name: str) -> Spec:
        return quantity(name, axis=axis, domain=[-reach, reach])

    y = row_of_run()
    marks = marks_of(runs, [row.run for row in data.rows])
    marks["fill"] = {**marks["fill"], "condition": {"test": "datum.doubt", "value": PAPER}}
    zero: Spec = {"type": "rule", "color": SOFT, "strokeDash": [2, 4]}
    layers = [
        layer(zero, {"x": {"datum": 0, "type": "quantitative"}}, [{}]),
        whiskers(rows, {"y": y, "x": x("low"), "x2": {"field": "high"}}),
        layer({"type": "point", "size": 120, "opacity": 1}, {"y": y, "x": x("value"), **marks}, rows, IF_SHOWN),
    ]
    words = captions.describe_differences(runs, data, baseline)
    return Chart(layers, hover_bands(pointed, {"y": y}, IF_SHOWN), words, height=34 * len(rows))


def cost_chart(runs: Sequence[RunView], points: Sequence[CostPoint | None], title: str, what: str) -> Chart:
    """Balanced accuracy against a cost, with the standard deviation over seeds."""
    name_of_all = words_of(runs).headline
    known = {i: point for i, point in enumerate(points) if point is not None}
    costs = [point.cost for point in known.values()]
    floor = max(0, math.floor(min(point.accuracy - point.std for point in known.values()) - 0.5))
    ceiling = min(100, math.ceil(max(point.accuracy + point.std for point in known.values()) + 0.5))
    logarithmic = min(costs) > 0 and max(costs) > 20 * min(costs)
    rows: list[Spec] = []
    pointed: list[Spec] = []
    for i, point in known.items():
        low, high = point.accuracy - point.std, point.accuracy + point.std
        rows.append({"run": i, "cost": point.cost, "accuracy": point.accuracy, "low": low, "high": high})
        text = f"{point.accuracy:.1f}" + (f" ± {point.std:.1f} %" if point.std else " %")
        pointed.append(told(capital(name_of_all), f"{point.cost:,.2f} {what}", [(i, text)], **rows[-1]))
    scale: Spec = {"type": "log"} if logarithmic else {"domain": [0, 1.05 * max(costs)], "nice": False}
    axis: Spec = {"tickCount": 4, **SPARSE, "grid": False}
    x = quantity("cost", f"{title} (logarithmic)" if logarithmic else title, axis=axis, **scale)

    def y(name: str) -> Spec:
        axis: Spec = {"tickCount": 4, "labelExpr": "datum.label + ' %'"}
        return quantity(name, name_of_all, axis=axis, domain=[floor, ceiling], nice=False)

    marks = marks_of(runs, list(known))
    shares = [math.log(cost / min(costs)) if logarithmic else cost for cost in costs]
    shares = [share / (1.05 * max(shares) or 1) for share in shares]
    heights = [(point.accuracy - floor) / (ceiling - floor) for point in known.values()]
    sides = _free_sides(list(zip(shares, heights, strict=True)), [runs[i].name for i in known])
    named: list[Spec] = [{**row, "side": side} for row, side in zip(rows, sides, strict=True) if side is not None]
    layers = [
        whiskers(rows, {"x": x, "y": y("low"), "y2": {"field": "high"}}),
        layer({"type": "point", "size": 120, "opacity": 1}, {"x": x, "y": y("accuracy"), **marks}, rows, IF_SHOWN),
        layer(
            {"type": "text", "align": {"expr": "datum.side"}, "dx": {"expr": "datum.side == 'left' ? 10 : -10"}},
            {"x": x, "y": y("accuracy"), "text": {"field": "name"}},
            named,
            IF_SHOWN,
            {"calculate": SHORT_NAME, "as": "name"},
        ),
    ]
    found = hover_nearest(pointed, {"type": "point", "size": 260, "color": SOFT}, {"x": x, "y": y("accuracy")})
    return Chart(layers, found, captions.describe_cost(runs, points, what), height=220)


def curve_chart(runs: Sequence[RunView], curves: Sequence[Curve], what: str, title: str, unit: str = "") -> Chart:
    """A value by epoch; percent do not begin at 0."""
    drawn = [i for i, curve in enumerate(curves) if curve]
    longest = max(len(curve) for curve in curves)
    rows: list[Spec] = [
        {"run": i, "epoch": [epoch for epoch, _ in curves[i]], "value": [value for _, value in curves[i]]}
        for i in drawn
    ]
    by_epoch: dict[int, list[tuple[int | str, str]]] = {}
    for i in drawn:
        for epoch, value in curves[i]:
            by_epoch.setdefault(epoch, []).append((i, f"{value:.1f} %" if unit else f"{value:.3f}"))
    last = max(by_epoch)
    ticks: Spec = {"tickMinStep": 1, "grid": False, **SPARSE}
    x = quantity("epoch", "epoch", axis=ticks, domain=[1, max(2, last)], nice=False)
    y = quantity("value", title, axis={"tickCount": 4, "labelExpr": f"datum.label + '{unit}'"}, zero=not unit)
    each: list[Spec] = [IF_SHOWN, {"flatten": ["epoch", "value"]}]
    pointed = [told(f"Epoch {epoch}", "", texts, epoch=epoch) for epoch, texts in sorted(by_epoch.items())]
    return Chart(
        lines(runs, drawn, {"x": x, "y": y}, rows, each, longest),
        hover_nearest(pointed, {"type": "rule", "color": SOFT}, {"x": x}),
        captions.describe_curves(runs, curves, what, unit),
        height=210,
    )


def reliability_chart(runs: Sequence[RunView]) -> Chart:
    """Accuracy against confidence; on the diagonal a model is correct as often as it is confident."""
    rows: list[Spec] = []
    pointed: list[Spec] = []
    for i, run in enumerate(runs):
        for item in run.reliability:
            if item.confidence is None or item.accuracy is None:
                continue
            confidence, accuracy = round(100 * item.confidence, 4), round(100 * item.accuracy, 4)
            place: Spec = {"run": i, "confidence": confidence, "accuracy": accuracy}
            rows.append(place)
            images = f"{item.count:,} image{'s' if item.count != 1 else ''}"
            pointed.append(told(f"{confidence:.1f} % confident", images, [(i, f"{accuracy:.1f} % right")], **place))
    drawn = [i for i, run in enumerate(runs) if any(item.count for item in run.reliability)]
    encoding: Spec = {"x": percent("confidence", "confidence"), "y": percent("accuracy", "accuracy")}
    diagonal: Spec = {"type": "line", "color": SOFT, "strokeDash": [2, 4], "strokeWidth": 1}
    layers = [
        layer(diagonal, encoding, [{"confidence": end, "accuracy": end} for end in (0, 100)]),
        *lines(runs, drawn, encoding, rows, [IF_SHOWN], longest=0),
    ]
    found = hover_nearest(pointed, {"type": "point", "size": 160, "color": SOFT}, encoding)
    return Chart(layers, found, captions.describe_reliability(runs), height=340)


def _free_sides(places: Sequence[tuple[float, float]], names: Sequence[str]) -> list[str | None]:
    """Where the name of a mark begins ("left") or ends ("right"), None where it would cover an earlier one.

    Args:
        places: right and up as shares of the plot, which is taken for 280 by 220 pixels: that of a phone.
        names: one a mark, in letters of 7 by 14 pixels.
    """
    taken: list[tuple[float, float, float]] = []
    sides: list[str | None] = []
    for (right, up), name in zip(places, names, strict=True):
        side = "left" if right < 0.6 else "right"
        width = 7 * min(20, len(name)) + 10
        start = 280 * right - (0 if side == "left" else width)
        free = all(abs(220 * up - level) >= 14 or start > e or start + width < s for s, e, level in taken)
        sides.append(side if free else None)
        if free:
            taken.append((start, start + width, 220 * up))
    return sides
