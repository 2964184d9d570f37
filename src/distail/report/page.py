"""One self-contained HTML page: opened from disk it asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from distail import files
from distail._version import __version__
from distail.evaluation.groups import THIRDS_RULE, thirds
from distail.evaluation.teacher_bias import describe_bias
from distail.report import wording
from distail.report.chart_data import chart_data, class_order, describe_flow, flow_rows, swallowers
from distail.report.differences import describe_differences, difference_tables, signed
from distail.report.gallery import STUDENTS_OPEN, galleries
from distail.report.results_table import COLUMNS, Column, Row, caption, cell, table_rows
from distail.report.style import styles_of
from distail.report.views import (
    NO_IMAGE,
    ReportView,
    RunView,
    difference,
    recall_by_class,
    reference,
    students,
    teachers,
)

_HIGHLIGHTS = (
    ("Top-1", "top1"),
    ("Balanced accuracy", "balanced_accuracy"),
    ("Tail third", "tail"),
    ("Worst class", "worst_class"),
    ("Calibration error", "ece"),
)
_CHANGES_UP_TO = 3
SCRIPTS = ("echarts.common.min.js", "base.js", "charts.js", "page.js")


def write_page(path: str | Path, view: ReportView) -> Path:
    """Write the report of one or more models into one HTML file and return its path.

    Whatever a view lacks is named on the page as missing. All text is escaped; scripts run only if their hash is the
    one that this function computed, and nothing may be loaded (Content-Security-Policy).

    Args:
        path: the file to write; it appears complete or not at all.
        view: what to show.
    """
    path = Path(path)
    files.write_text(path, render_page(view))
    return path


def render_page(view: ReportView) -> str:
    """The page of `write_page` as text."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    environment.filters["signed"] = signed
    runs = view.runs
    data = chart_data(view)
    words = _words(runs, view.comparison.baseline if view.comparison else "", data)
    classes, shown = _classes(view), galleries(view)
    styles = styles_of(runs)
    for run, style in zip(data["runs"], styles, strict=True):
        run.update(path=style.path, filled=style.filled, dash=list(style.dash))
    scripts = [_asset(name) for name in SCRIPTS]
    return environment.get_template("page.html.jinja").render(
        view=view,
        title=view.title,
        summary=view.summary or wording.summary_sentence(view),
        bias=describe_bias(view.bias) if view.bias is not None else None,
        facts=_facts(view),
        highlights=_highlights(runs),
        notes=[*view.notes, *filter(None, [wording.noise_note(view)])],
        missing=[*(view.comparison.missing if view.comparison else ()), *view.problems],
        runs=runs,
        styles=styles,
        results=_results(runs),
        results_caption=caption(seeds=_seeds(runs)),
        differences=difference_tables(view),
        data=data,
        words=words,
        classes=classes,
        seeds=_seeds(runs),
        swallowers=[(run.name, found) for run in runs if (found := swallowers(view, run))],
        flows=[(run.name, rows) for run in runs if (rows := flow_rows(run))],
        galleries=shown,
        galleries_open=STUDENTS_OPEN,
        contents=_contents(view, words, bool(classes), bool(shown)),
        reliability=[(run, [item for item in run.reliability if item.count]) for run in runs if run.reliability],
        versions=sorted(view.versions.items()),
        version=__version__,
        data_json=_safe_json(data),
        css=_asset("page.css"),
        scripts=scripts,
        script_hashes=[_csp_hash(script) for script in scripts],
    )


@cache
def _asset(name: str) -> str:
    return (resources("distail.report") / "assets" / name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _safe_json(data: Any) -> str:
    # Inside <script> HTML knows no entities: what could end or open a tag is written as a JSON escape instead.
    text = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _facts(view: ReportView) -> list[tuple[str, str]]:
    facts = []
    counts = view.class_counts
    if view.comparison is not None and view.comparison.seeds:
        facts += [("Seeds", ", ".join(map(str, view.comparison.seeds))), ("Baseline", view.comparison.baseline)]
    if counts:
        facts += [
            ("Training images", f"{sum(counts):,}"),
            ("Classes", f"{len(counts):,}"),
            ("Largest to smallest class", f"{max(counts):,} to {min(counts):,}"),
        ]
    if view.subset_sha256:
        facts.append(("Training subset", view.subset_sha256[:12]))
    return facts


def _contents(view: ReportView, words: Mapping[str, Any], classes: bool, gallery: bool) -> list[tuple[str, str]]:
    """The sections that this page has, in their order."""
    sections = [
        ("results", "Results", bool(view.runs)),
        ("differences", "Differences", bool(view.comparison and view.comparison.differences)),
        ("recall", "Recall against class size", bool(words["recall"])),
        ("groups", "Head, medium and tail", bool(words["thirds"])),
        ("flow", "Where tail predictions go", bool(words["flow"])),
        ("gallery", "Gained and lost", gallery),
        ("classes", "Every class", classes),
        ("cost", "Cost", bool(words["parameters"] or words["seconds"])),
        ("training", "Training", bool(words["loss"])),
        ("reliability", "Calibration", bool(words["reliability"])),
        ("configuration", "Configuration", bool(view.config or view.versions)),
    ]
    return [(anchor, name) for anchor, name, there in sections if there]


def _seeds(runs: Sequence[RunView]) -> int:
    return max((len(run.seeds) for run in runs), default=0)


def _highlights(runs: Sequence[RunView]) -> list[tuple[str, str, str | None]]:
    """The few percentages that decide, where there is one student to speak of: title, its value, its teacher's."""
    taught, teaching = students(runs), teachers(runs)
    if len(taught) != 1:
        return []
    student = table_rows(taught)[0]
    teacher = table_rows(teaching)[0] if len(teaching) == 1 else None
    return [
        (title, cell(student, COLUMNS[name]), cell(teacher, COLUMNS[name]) if teacher else None)
        for title, name in _HIGHLIGHTS
    ]


def _results(runs: Sequence[RunView]) -> dict[str, Any]:
    def entry(row: Row, column: Column) -> dict[str, Any]:
        return {"text": cell(row, column), "value": column.value(row)}

    return {
        "columns": [column.title for column in COLUMNS.values()],
        "rows": [(row, [entry(row, column) for column in COLUMNS.values()]) for row in table_rows(runs)],
    }


def _words(runs: Sequence[RunView], baseline: str, data: Mapping[str, Any]) -> dict[str, Any]:
    measured = any(run.metrics is not None for run in runs)
    return {
        "recall": wording.describe_recall(runs, data["recall"]) if data["recall"] else None,
        "thirds": wording.describe_groups(runs, data["groups"]["thirds"]) if measured else None,
        "shots": wording.describe_groups(runs, data["groups"]["shots"]) if measured else None,
        "loss": wording.describe_curves(runs, data["loss"], "Training loss", "") if any(data["loss"]) else None,
        "validation": wording.describe_curves(
            runs, data["validation"], "Balanced accuracy on the validation split", " %"
        )
        if any(data["validation"])
        else None,
        "reliability": wording.describe_reliability(runs) if any(data["reliability"]) else None,
        "flow": describe_flow(runs),
        "parameters": wording.describe_cost(runs, data["cost"]["parameters"], "million parameters"),
        "seconds": wording.describe_cost(runs, data["cost"]["seconds"], "seconds of training"),
        "differences": [
            describe_differences(chart, [run.name for run in runs], baseline) for chart in data["differences"]
        ],
    }


def _classes(view: ReportView) -> dict[str, Any] | None:
    measured = [(run, recalls) for run in view.runs if (recalls := recall_by_class(run)) is not None]
    if not view.class_counts or not measured:
        return None
    third_of = {c: name for name, members in thirds(view.class_counts).items() for c in members}
    columns = [(f"{run.name}, recall", list(recalls), False) for run, recalls in measured]
    against = reference(view)
    taught = [(run, recalls) for run, recalls in measured if run.role == "student" and run is not against]
    if against is not None and len(taught) <= _CHANGES_UP_TO:
        base = recall_by_class(against)
        assert base is not None
        columns += [(f"{run.name} against {against.name}", difference(recalls, base), True) for run, recalls in taught]
    return {
        "columns": [title for title, _, _ in columns],
        "rows": [
            {
                "name": view.class_names[c],
                "count": view.class_counts[c],
                "third": third_of[c],
                "cells": [
                    {"value": values[c], "text": _signed(values[c]) if change else _plain(values[c])}
                    for _, values, change in columns
                ],
            }
            for c in class_order(view.class_counts)
        ],
        "rule": THIRDS_RULE,
        "changes": len(columns) > len(measured),
    }


def _plain(value: float | None) -> str:
    return NO_IMAGE if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    return NO_IMAGE if value is None else signed(value)
