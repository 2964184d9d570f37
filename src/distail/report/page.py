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

from distail import __version__, files
from distail.evaluation.groups import THIRDS_RULE, thirds
from distail.evaluation.teacher_bias import describe_bias
from distail.report import wording
from distail.report.series import chart_data, class_order
from distail.report.style import styles_of
from distail.report.table import COLUMNS, Column, Row, caption, cell, table_rows
from distail.report.views import RunView, students, teachers

_HIGHLIGHTS = (
    ("Top-1", "top1"),
    ("Balanced accuracy", "balanced_accuracy"),
    ("Tail third", "tail"),
    ("Worst class", "worst_class"),
    ("Calibration error", "ece"),
)
_CHANGES_UP_TO = 3


def write_page(
    path: str | Path,
    *,
    title: str,
    runs: Sequence[RunView],
    class_names: Sequence[str] = (),
    class_counts: Sequence[int] = (),
    summary: str | None = None,
    bias: Mapping[str, Any] | None = None,
    config: str = "",
    versions: Mapping[str, str] | None = None,
    subset_sha256: str | None = None,
    notes: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> Path:
    """Write the report of one or more models into one HTML file and return its path.

    Whatever a view lacks is named on the page as missing. All text is escaped; scripts run only if their hash is the
    one that this function computed, and nothing may be loaded (Content-Security-Policy).

    Args:
        path: the file to write; it appears complete or not at all.
        title: the page's heading.
        runs: the models, in the order they are shown.
        class_names: (C,) names.
        class_counts: (C,) training images of each class.
        summary: the sentence below the heading; written from the figures by default.
        bias: what `distail.evaluation.teacher_bias.teacher_bias` returned.
        config: the experiment as YAML.
        versions: package name to version.
        subset_sha256: the hash of the training subset.
        notes: what a reader must know about the results.
        problems: what could not be read.
    """
    path = Path(path)
    files.write_text(
        path,
        render_page(
            title=title,
            runs=runs,
            class_names=class_names,
            class_counts=class_counts,
            summary=summary,
            bias=bias,
            config=config,
            versions=versions,
            subset_sha256=subset_sha256,
            notes=notes,
            problems=problems,
        ),
    )
    return path


def render_page(
    *,
    title: str,
    runs: Sequence[RunView],
    class_names: Sequence[str],
    class_counts: Sequence[int],
    summary: str | None,
    bias: Mapping[str, Any] | None,
    config: str,
    versions: Mapping[str, str] | None,
    subset_sha256: str | None,
    notes: Sequence[str],
    problems: Sequence[str],
) -> str:
    """The page of `write_page` as text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    data = chart_data(runs, class_names, class_counts)
    styles = styles_of(runs)
    for run, style in zip(data["runs"], styles, strict=True):
        run.update(path=style.path, filled=style.filled, dash=list(style.dash))
    scripts = [_asset("echarts.common.min.js"), _asset("page.js")]
    return environment.from_string(_asset("page.html.jinja")).render(
        title=title,
        summary=summary or wording.summary_sentence(runs),
        bias=describe_bias(bias) if bias is not None else None,
        facts=_facts(class_counts, subset_sha256),
        highlights=_highlights(runs),
        problems=problems,
        notes=[*notes, *filter(None, [wording.noise_note(runs)])],
        runs=runs,
        styles=styles,
        results=_results(runs),
        results_caption=caption(),
        data=data,
        words=_words(runs, data),
        classes=_classes(runs, class_names, class_counts),
        reliability=[(run, [item for item in run.reliability if item.count]) for run in runs if run.reliability],
        config=config,
        versions=sorted((versions or {}).items()),
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


def _facts(class_counts: Sequence[int], subset_sha256: str | None) -> list[tuple[str, str]]:
    facts = []
    if class_counts:
        facts += [
            ("Training images", f"{sum(class_counts):,}"),
            ("Classes", f"{len(class_counts):,}"),
            ("Largest to smallest class", f"{max(class_counts):,} to {min(class_counts):,}"),
        ]
    if subset_sha256:
        facts.append(("Training subset", subset_sha256[:12]))
    return facts


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


def _words(runs: Sequence[RunView], data: Mapping[str, Any]) -> dict[str, str | None]:
    measured = any(run.figures is not None for run in runs)
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
    }


def _classes(runs: Sequence[RunView], class_names: Sequence[str], class_counts: Sequence[int]) -> dict[str, Any] | None:
    measured = [run for run in runs if run.figures is not None]
    if not class_counts or not measured:
        return None
    third_of = {c: name for name, members in thirds(class_counts).items() for c in members}
    recalls = [_recalls(run) for run in measured]
    columns = [f"{run.name}, recall" for run in measured]
    taught, teaching = students(runs), teachers(runs)
    if len(teaching) == 1 and len(taught) <= _CHANGES_UP_TO:
        columns += [f"{run.name} against teacher" for run in taught]
        recalls += [_difference(_recalls(run), _recalls(teaching[0])) for run in taught]
    changes_from = len(measured)
    rows = [
        {
            "name": class_names[c],
            "count": class_counts[c],
            "third": third_of[c],
            "cells": [
                {"value": column[c], "text": _signed(column[c]) if i >= changes_from else _plain(column[c])}
                for i, column in enumerate(recalls)
            ],
        }
        for c in class_order(class_counts)
    ]
    return {"columns": columns, "rows": rows, "rule": THIRDS_RULE, "changes": len(columns) > changes_from}


def _recalls(run: RunView) -> list[float | None]:
    return list(run.figures["per_class_recall"]) if run.figures is not None else []


def _difference(own: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(own, other, strict=True)]


def _plain(value: float | None) -> str:
    return "no test image" if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    # Adding 0.0 turns a rounded -0.0 into 0.0; the minus is the typographic one.
    return "no test image" if value is None else f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")
