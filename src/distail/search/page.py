"""The page of a search: what was tried, what mattered, what came out."""

from __future__ import annotations

import html
import json
from pathlib import Path

from distail import files
from distail.report.page import render
from distail.report.style import PAGE_FONT
from distail.report.vega import CONFIG, INK, PAPER, SOFT, WIDTH, Spec, layer, quantity
from distail.search.content import FINISHED, STOPPED_EARLY, SearchContent
from distail.search.progress import trials_table
from distail.search.statements import statements

PAGE = "report.html"
_CHOSEN, _BEYOND = "chosen", "loses too much top-1"


def write_search_page(folder: Path, content: SearchContent) -> Path:
    """Write `report.html` into a search's folder: one file that loads nothing."""
    table = trials_table(content)
    best = folder / "best.yaml"
    page = render(
        "search.html.jinja",
        content=content,
        statements=content["statements"] or statements(content),
        table=table,
        numbers=[position not in table.text_columns for position in range(len(table.columns))],
        trials_svg=_svg(_trials_chart(content)),
        importances=sorted(content["importances"].items(), key=lambda item: -item[1]),
        importances_svg=_svg(_importances_chart(content)) if content["importances"] else None,
        best=best.read_text(encoding="utf-8") if best.is_file() else "",
    )
    files.write_text(folder / PAGE, page)
    return folder / PAGE


def _trials_chart(content: SearchContent) -> Spec:
    """A mark for each trial, in the order in which they began; the best so far as a line."""
    rows: list[Spec] = []
    line: list[Spec] = []
    highest = 0.0
    for one in content["trials"]:
        if one["figure"] is None:
            continue
        state = one["state"] if one["within_bound"] else _BEYOND
        state = _CHOSEN if content["finalists"] and one["number"] == content["best"] else state
        rows.append({"trial": one["number"], "figure": one["figure"], "state": state})
        if one["state"] == FINISHED and one["within_bound"]:
            highest = max(highest, one["figure"])
            line.append({"trial": one["number"], "figure": highest})
    x = quantity("trial", "trial", axis={"tickMinStep": 1, "grid": False})
    y = quantity("figure", "the searched metric", axis={"labelExpr": "datum.label + ' %'"}, zero=False)
    beyond = [] if content["top1_loss"] is None else [_BEYOND]
    states = [_CHOSEN, FINISHED, STOPPED_EARLY, *beyond]
    strokes, insides = [INK, INK, SOFT, "var(--warn)"], ["var(--link)", INK, PAPER, PAPER]
    colors: Spec = {"field": "state", "type": "nominal", "scale": {"domain": states, "range": strokes}}
    fills = {**colors, "scale": {"domain": states, "range": insides}, "legend": None}
    shapes: Spec = {
        "field": "state",
        "type": "nominal",
        "title": None,
        "scale": {"domain": states, "range": ["diamond", "circle", "circle", "cross"]},
        "legend": {"orient": "top"},
    }
    return {
        "description": "The searched metric of each trial, in the order in which the trials started.",
        "layer": [
            layer({"type": "line", "interpolate": "step-after", "color": SOFT}, {"x": x, "y": y}, line),
            layer(
                {"type": "point", "size": 70, "opacity": 1},
                {"x": x, "y": y, "stroke": {**colors, "legend": None}, "fill": fills, "shape": shapes},
                rows,
            ),
        ],
        "height": 240,
    }


def _importances_chart(content: SearchContent) -> Spec:
    rows: list[Spec] = [{"name": name, "share": 100 * share} for name, share in content["importances"].items()]
    y: Spec = {"field": "name", "type": "nominal", "sort": "-x", "title": None}
    x = quantity("share", "share of the variance between finished trials", axis={"labelExpr": "datum.label + ' %'"})
    return {
        "description": "Share of the variance between finished trials that each parameter explains.",
        "layer": [layer({"type": "bar", "color": SOFT, "height": 14}, {"x": x, "y": y}, rows)],
        "height": 24 * len(rows),
    }


def _svg(spec: Spec) -> str:
    """Drawn in the page's own colors, light or dark."""
    import vl_convert

    look = {"width": WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}, "background": None}
    whole = {**spec, **look, "config": {**CONFIG, "font": PAGE_FONT}}
    svg: str = vl_convert.vegalite_to_svg(json.dumps(whole, allow_nan=False))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(str(spec["description"]))}" ', 1)
