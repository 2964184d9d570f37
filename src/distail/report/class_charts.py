"""The charts of recall by class and by group of classes, and of where the errors go."""

from __future__ import annotations

from collections.abc import Sequence

from distail.report import captions
from distail.report.chart_data import OUTCOME_TITLES, OUTCOMES, GroupsData, RecallData, Values, rank_ticks
from distail.report.vega import (
    IF_SHOWN,
    INK,
    LEGEND,
    PAPER,
    SHORT_NAME,
    SOFT,
    SPARSE,
    Chart,
    Spec,
    bars_of,
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
from distail.report.views import NO_CLASS, NO_IMAGE, RunView, words_of


def recall_chart(runs: Sequence[RunView], data: RecallData) -> Chart:
    """Recall by class, classes from most to fewest training images: a mark a class, a line the neighborhood mean."""
    measure = words_of(runs).by_class
    drawn = [i for i, recalls in enumerate(data.recalls) if recalls is not None]
    ranks = list(range(len(data.counts)))
    rows: list[Spec] = [{"run": i, "rank": ranks, "recall": data.recalls[i], "mean": data.means[i]} for i in drawn]
    each: list[Spec] = [IF_SHOWN, {"flatten": ["rank", "recall", "mean"]}]

    ticks = rank_ticks(len(ranks), 12 if len(ranks) <= 12 else 9)
    axis: Spec = {"values": ticks, "labelExpr": "format(counts[datum.value], ',')", "grid": False, **SPARSE}

    def x(name: str) -> Spec:
        ends = [-0.5, len(ranks) - 0.5]
        return quantity(name, "training images in the class", axis=axis, domain=ends, nice=False)

    third_rows: list[Spec] = [
        {"third": name, "from": start - 0.5, "to": end - 0.5, "middle": (start + end - 1) / 2}
        for name, start, end in data.thirds
    ]
    layers = [
        layer(
            {"type": "rect", "color": INK, "opacity": 0.04},
            {"x": x("from"), "x2": {"field": "to"}},
            [row for row in third_rows if row["third"] == "medium"],
        ),
        layer(
            {"type": "text", "color": SOFT},
            {"x": x("middle"), "y": {"value": -14}, "text": {"field": "third"}},
            third_rows,
        ),
    ]
    if data.points and data.window > 1:
        faint = {"type": "point", "opacity": 0.5, "size": 28}
        place = {"x": x("rank"), "y": percent("recall", measure)}
        layers.append(layer(faint, {**place, **marks_of(runs, drawn)}, rows, *each))
    place = {"x": x("rank"), "y": percent("mean", measure)}
    layers += lines(runs, drawn, place, rows, each, longest=len(ranks))
    pointed = [
        told(
            name,
            f"{count:,} training image{'s' if count != 1 else ''}",
            [(i, _percent_or(NO_IMAGE, recalls[rank])) for i in drawn if (recalls := data.recalls[i]) is not None],
            rank=rank,
        )
        for rank, (name, count) in enumerate(zip(data.names, data.counts, strict=True))
    ]
    return Chart(
        layers,
        hover_nearest(pointed, {"type": "rule", "color": SOFT}, {"x": x("rank")}),
        captions.describe_recall(runs, data),
        height=290,
        values={"counts": data.counts},
    )


def group_chart(runs: Sequence[RunView], data: GroupsData) -> Chart:
    """Bars of mean recall by group of classes, with the standard deviation over seeds."""
    drawn = [i for i, values in enumerate(data.values) if values is not None]
    classes = ["1 class" if size == 1 else f"{size or 'no'} classes" for size in data.sizes]
    rows: list[Spec] = []
    pointed: list[Spec] = []
    for group, missing in enumerate(data.missing):
        texts: list[tuple[int | str, str]] = []
        for i in drawn:
            value, std = (data.values[i] or [])[group], data.stds[i][group]
            text = missing if value is None else f"{value:.1f}" + ("" if std is None else f" ± {std:.1f}")
            texts.append((i, text if value is None else f"{text} %"))
            low, high = max(0.0, (value or 0.0) - (std or 0.0)), min(100.0, (value or 0.0) + (std or 0.0))
            rows.append({"run": i, "group": group, "recall": value, "text": text, "low": low, "high": high})
        pointed.append(told(data.names[group], classes[group], texts, group=group))
    axis: Spec = {"labelExpr": "groups[datum.value]", "labelLineHeight": 15, "labelColor": INK, "grid": False}
    apart = {"paddingInner": 0.15, "paddingOuter": 0.05}
    y: Spec = {"field": "group", "type": "ordinal", "title": None, "sort": None, "axis": axis, "scale": apart}
    place: Spec = {
        "y": y,
        "yOffset": {"field": "run", "type": "nominal", "sort": None, "scale": {"paddingInner": 0.14}},
    }
    # The text of the longest bar needs its room on the narrowest page.
    plot = f"(room - {70 + (85 if any(any(stds) for stds in data.stds) else 40)})"

    def x(name: str) -> Spec:
        scale: Spec = {"domainMin": 0, "domainMax": {"expr": f"100 * (room - 70) / {plot}"}, "nice": False}
        return {**percent(name, f"mean {words_of(runs).by_class}"), "scale": scale}

    named = f"datum.text + '  ' + {SHORT_NAME}"
    fits = f"room > 480 && datum.high / 100 * {plot} + 7 * length({named}) < room - 75"
    bar: Spec = {"type": "bar", "strokeWidth": 1.2}
    layers = [
        layer(bar, {**place, "x": x("recall"), **bars_of(runs, drawn)}, rows, IF_SHOWN),
        whiskers(rows, {**place, "x": x("low"), "x2": {"field": "high"}}),
        layer(
            {"type": "text", "align": "left", "dx": 5},
            {**place, "x": x("high"), "text": {"field": "label"}},
            rows,
            IF_SHOWN,
            {"calculate": f"{fits} ? {named} : datum.text", "as": "label"},
        ),
    ]
    return Chart(
        layers,
        hover_bands(pointed, {"y": y}),
        captions.describe_groups(runs, data),
        height=3 * max(44, 21 * len(drawn)),
        values={"groups": [list(pair) for pair in zip(data.names, classes, strict=True)]},
    )


def flow_chart(runs: Sequence[RunView], flows: Sequence[Values | None]) -> Chart:
    """Each model's test images of tail classes, split by where they end."""
    rows: list[Spec] = []
    pointed: list[Spec] = []
    for i, shares in enumerate(flows):
        if shares is None:
            continue
        start = 0.0
        texts: list[tuple[int | str, str]] = []
        for outcome, share in zip(OUTCOMES, shares, strict=True):
            end = start + (share or 0.0)
            place: Spec = {"start": start, "end": end, "middle": (start + end) / 2}
            rows.append({"run": i, "outcome": outcome, "text": f"{end - start:.1f}", **place})
            texts.append((OUTCOME_TITLES[outcome], _percent_or(NO_CLASS, share)))
            start = end
        pointed.append(told(runs[i].name, "test images of tail classes", texts, run=i))
    title = "test images of tail classes"
    fill = _by_outcome([f"var(--flow-{name})" for name in OUTCOMES])
    ink = {**_by_outcome([f"var(--on-flow-{name})" for name in OUTCOMES]), "legend": None}
    y = row_of_run()
    wide_enough: Spec = {"filter": "(datum.end - datum.start) * (room - 100) > 2800"}
    layers = [
        layer(
            {"type": "bar", "stroke": PAPER, "strokeWidth": 1},
            {"y": y, "x": percent("start", title), "x2": {"field": "end"}, "fill": fill},
            rows,
            IF_SHOWN,
        ),
        layer(
            {"type": "text"},
            {"y": y, "x": percent("middle", title), "text": {"field": "text"}, "color": ink},
            rows,
            IF_SHOWN,
            wide_enough,
        ),
    ]
    height = 34 * len(pointed)
    return Chart(layers, hover_bands(pointed, {"y": y}, IF_SHOWN), captions.describe_flow(runs, flows), height)


def _by_outcome(colors: Sequence[str]) -> Spec:
    titles = ", ".join(f"'{name}': '{OUTCOME_TITLES[name]}'" for name in OUTCOMES)
    legend = {**LEGEND, "labelExpr": f"{{{titles}}}[datum.label]", "columns": 2}
    scale = {"domain": [*OUTCOMES], "range": [*colors]}
    return {"field": "outcome", "type": "nominal", "scale": scale, "legend": legend}


def _percent_or(missing: str, value: float | None) -> str:
    return missing if value is None else f"{value:.1f} %"
