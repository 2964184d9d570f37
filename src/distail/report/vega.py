"""What the charts share, in Vega-Lite: the look of each model, axes, and what is told where the pointer is.

Colors are CSS variables: a page gives them values for light, dark and paper, `distail.report.figures` for a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distail.report.style import PAGE_FONT, styles_of
from distail.report.views import RunView

Spec = Mapping[str, object]
"""A part of a Vega-Lite specification (https://vega.github.io/vega-lite/docs/)."""

WIDTH = 640
SHORT_NAME = "truncate(names[datum.run], 20)"
IF_SHOWN: Spec = {"filter": "indexof(shown, datum.run) >= 0"}
SPARSE: Spec = {"labelOverlap": "parity", "labelSeparation": 6}
INK, SOFT, PAPER = "var(--ink)", "var(--soft)", "var(--paper)"
CONFIG: Spec = {
    "aria": False,  # a sentence says what the whole chart shows
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": "var(--line)",
        "labelColor": SOFT,
        "labelFontSize": 12,
        "labelPadding": 6,
        "titleColor": SOFT,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "legend": {"labelColor": INK, "labelFontSize": 12, "labelLimit": 300, "symbolSize": 90},
    "text": {"color": INK, "fontSize": 12},
    "title": {"color": INK, "fontSize": 13, "anchor": "start", "frame": "bounds"},
}
LEGEND: Spec = {"title": None, "orient": "top", "offset": 22, "symbolOpacity": 1}


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        layers: what is drawn, from back to front.
        hover: an invisible layer for a page only: its marks hold what is told where the pointer is.
        description: a sentence for those who do not see it.
        height: of the plot, in pixels.
        values: what expressions in the layers may name.
    """

    layers: Sequence[Spec]
    hover: Spec
    description: str
    height: int
    values: Mapping[str, object] = field(default_factory=dict)

    def spec(self, runs: Sequence[RunView], width: int = WIDTH) -> Spec:
        """The Vega-Lite specification of a figure that is so wide with its axes and labels."""
        values = {
            "shown": list(range(len(runs))),
            "names": [run.name for run in runs],
            "dashes": [style.dash for style in styles_of(runs)],
            "room": width,
            **self.values,
        }
        return {
            "description": self.description,
            "params": [{"name": name, "value": value} for name, value in values.items()],
            "layer": self.layers,
            "width": width,
            "height": self.height,
            "autosize": {"type": "fit-x", "contains": "padding"},
            "config": CONFIG,
        }

    def page_spec(self, runs: Sequence[RunView]) -> Spec:
        """The same for a page, in Vega: with what is told where the pointer is, and without a legend of its own."""
        import vl_convert

        spec = {**self.spec(runs), "layer": [*self.layers, self.hover], "background": None}
        compiled: dict[str, object] = vl_convert.vegalite_to_vega({**spec, "config": {**CONFIG, "font": PAGE_FONT}})
        del compiled["legends"]
        return compiled


def layer(mark: Spec, encoding: Spec, rows: Sequence[Spec], *transform: Spec) -> Spec:
    """Marks of one kind, one for each of the rows that the transforms leave or make."""
    return {"data": {"values": rows}, "transform": transform, "mark": mark, "encoding": encoding}


def quantity(name: str, title: str | None = None, *, axis: Spec | None = None, **scale: object) -> Spec:
    """A number on an axis."""
    return {"field": name, "type": "quantitative", "title": title, "axis": axis or {}, "scale": scale}


def percent(name: str, title: str) -> Spec:
    """Percent on an axis from 0 to 100."""
    axis: Spec = {"values": [0, 25, 50, 75, 100], "labelExpr": "datum.value + ' %'", **SPARSE}
    return quantity(name, title, axis=axis, domain=[0, 100], nice=False)


def row_of_run() -> Spec:
    """A row for each model, in the order of the runs, named beside it."""
    look: Spec = {"labelColor": INK, "labelFontSize": 13, "labelLimit": {"expr": "max(60, min(150, 0.25 * room))"}}
    axis: Spec = {"labelExpr": "names[datum.value]", "grid": False, **look}
    return {"field": "run", "type": "ordinal", "title": None, "sort": None, "axis": axis}


def marks_of(runs: Sequence[RunView], drawn: Sequence[int]) -> dict[str, Spec]:
    """The symbols of the models that are drawn, by their positions in ``runs``."""
    return {**bars_of(runs, drawn), "shape": _by_run(runs, drawn, [style.path for style in styles_of(runs)])}


def bars_of(runs: Sequence[RunView], drawn: Sequence[int]) -> dict[str, Spec]:
    """Filled or hollow: two models of one color differ by that."""
    colors = [f"var(--series-{i})" for i in range(len(runs))]
    fills = [color if style.filled else PAPER for color, style in zip(colors, styles_of(runs), strict=True)]
    return {"stroke": _by_run(runs, drawn, colors), "fill": _by_run(runs, drawn, fills)}


def lines(
    runs: Sequence[RunView], drawn: Sequence[int], place: Spec, rows: Sequence[Spec], each: Sequence[Spec], longest: int
) -> list[Spec]:
    """A line a model, with a symbol at every point, or at about eight of more than 25."""
    step = 1 if longest <= 25 else longest // 8
    line: Spec = {"type": "line", "strokeWidth": 2, "strokeDash": {"expr": "dashes[datum.run]"}}
    numbered: Spec = {"window": [{"op": "row_number", "as": "number"}], "groupby": ["run"]}
    some: Spec = {"filter": f"(datum.number - 1) % {step} == 0"}
    symbol: Spec = {"type": "point", "size": 60, "opacity": 1}
    return [
        layer(line, {**place, "stroke": bars_of(runs, drawn)["stroke"]}, rows, *each),
        layer(symbol, {**place, **marks_of(runs, drawn)}, rows, *each, numbered, some),
    ]


def whiskers(rows: Sequence[Spec], encoding: Spec) -> Spec:
    """Lines from ``low`` to ``high``, where these are known and differ."""
    known = [row for row in rows if row["low"] is not None and row["low"] != row["high"]]
    return layer({"type": "rule", "color": INK, "strokeWidth": 1.4}, encoding, known, IF_SHOWN)


def told(title: str, detail: str, values: Sequence[tuple[int | str, str]], **place: object) -> Spec:
    """What a page tells where the pointer is: a text for each model (by its position) or for each label."""
    return {"title": title, "detail": detail, "told": values, **place}


def hover_nearest(rows: Sequence[Spec], mark: Spec, encoding: Spec) -> Spec:
    """Marks of which the one nearest to the pointer shows and is told."""
    select = {"type": "point", "on": "pointermove", "clear": "pointerout", "nearest": True}
    appear = {"condition": {"param": "pointed", "empty": False, "value": 0.7}, "value": 0}
    found = layer({**mark, "tooltip": {"content": "data"}}, {**encoding, "opacity": appear}, rows)
    return {**found, "params": [{"name": "pointed", "select": select}]}


def hover_bands(rows: Sequence[Spec], encoding: Spec, *transform: Spec) -> Spec:
    """Invisible bands across the chart, each told where the pointer is on it."""
    return layer({"type": "rect", "opacity": 0, "tooltip": {"content": "data"}}, encoding, rows, *transform)


def _by_run(runs: Sequence[RunView], drawn: Sequence[int], looks: Sequence[object]) -> Spec:
    letters = max(len(runs[i].name) for i in drawn)
    legend = {**LEGEND, "labelExpr": "names[datum.value]", "columns": max(1, min(5, WIDTH // (7 * letters + 30)))}
    scale = {"domain": drawn, "range": [looks[i] for i in drawn]}
    return {"field": "run", "type": "nominal", "scale": scale, "legend": legend}
