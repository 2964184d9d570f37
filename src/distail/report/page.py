"""One self-contained HTML page: opened from disk it asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING

from distail import files
from distail._version import __version__
from distail.evaluation.groups import THIRDS_RULE, thirds
from distail.evaluation.headline import MAP, MEAN_AVERAGE_PRECISION
from distail.evaluation.teacher_bias import describe_bias
from distail.report import captions
from distail.report.chart_data import OUTCOME_TITLES, OUTCOMES, chart_data, class_order, flow_rows, top_confusions
from distail.report.charts import charts_of
from distail.report.differences import difference_tables
from distail.report.export_tables import cost_table, export_notes, parity_table
from distail.report.gallery import STUDENTS_OPEN, galleries
from distail.report.numbers import signed
from distail.report.results_table import COLUMNS, PAGE_COLUMNS, caption, cell, chosen_columns, table_rows
from distail.report.style import PAGE_FONT, css_variables, styles_of
from distail.report.views import (
    NO_IMAGE,
    ReportView,
    RunView,
    capital,
    deltas,
    recall_by_class,
    reference,
    students,
    teachers,
    words_of,
)

if TYPE_CHECKING:
    from jinja2 import Environment

_HIGHLIGHTS = (
    ("Top-1", "top1"),
    ("Balanced accuracy", "balanced_accuracy"),
    (MAP, MEAN_AVERAGE_PRECISION),
    ("Tail third", "tail"),
    ("Worst class", "worst_class"),
    ("Calibration error", "ece"),
)
_DELTAS_UP_TO = 3
SCRIPTS = ("vega.min.js", "vega-interpreter.min.js", "page.js")


@dataclass(frozen=True)
class Cell:
    """A number as it is sorted by and as it is shown."""

    value: float | None
    text: str


@dataclass(frozen=True)
class ClassRow:
    """One class in the table of all classes."""

    name: str
    count: int
    third: str
    cells: list[Cell]


@dataclass(frozen=True)
class ClassTable:
    """Recall of every class by every model, and what sets students apart from `reference` where there is room."""

    columns: list[str]
    rows: list[ClassRow]
    deltas: bool
    rule: str = THIRDS_RULE


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
    runs = view.runs
    data = chart_data(view)
    charts, classes, shown = charts_of(view, data), class_table(view), galleries(view)
    scripts = [_asset(name) for name in SCRIPTS]
    seeds = max((len(run.seeds) for run in runs), default=0)
    columns = chosen_columns(PAGE_COLUMNS, runs)
    return render(
        "page.html.jinja",
        view=view,
        title=view.title,
        summary=captions.summary_sentence(view),
        bias=describe_bias(view.bias) if view.bias is not None else None,
        facts=_facts(view),
        highlights=_highlights(runs),
        notes=[*view.notes, *filter(None, [captions.noise_note(view)])],
        missing=[*(view.comparison.missing if view.comparison else ()), *view.problems],
        runs=runs,
        words=words_of(runs),
        styles=styles_of(runs),
        colors=_colors(runs),
        columns=[column.title for column in columns],
        results=[(row, [Cell(column.value(row), cell(row, column)) for column in columns]) for row in table_rows(runs)],
        results_caption=caption(PAGE_COLUMNS, seeds, runs=runs),
        differences=difference_tables(view),
        exported=[] if view.exported is None else [cost_table(view.exported), parity_table(view.exported)],
        export_notes=[] if view.exported is None else export_notes(view.exported),
        mistakes=view.mistakes,
        charts=charts,
        data=data,
        outcomes=[(name, OUTCOME_TITLES[name]) for name in OUTCOMES],
        classes=classes,
        seeds=seeds,
        confusions=[(run.name, found) for run in runs if (found := top_confusions(view, run))],
        flows=[(run.name, rows) for run in runs if (rows := flow_rows(run))],
        galleries=shown,
        galleries_open=STUDENTS_OPEN,
        contents=_contents(view, charts, bool(classes), bool(shown)),
        reliability=[(run, [item for item in run.reliability if item.count]) for run in runs if run.reliability],
        versions=sorted(view.versions.items()),
        data_json=_safe_json(
            {
                "runs": [run.name for run in runs],
                "charts": {name: chart.page_spec(runs) for name, chart in charts.items()},
            }
        ),
        notices=_asset("vega.LICENSES.txt"),
        scripts=scripts,
        script_hashes=[_csp_hash(script) for script in scripts],
    )


def render(name: str, *, colors: Mapping[str, Mapping[str, str]] | None = None, **content: object) -> str:
    """A page from a template of `assets/`, which finds its style, colors and version beside what it is given."""
    template = _templates().get_template(name)
    return template.render(
        css=_asset("page.css"), font=PAGE_FONT, version=__version__, colors=colors or _colors([]), **content
    )


@cache
def _templates() -> Environment:
    """The templates of `assets/`, each compiled once: that takes longer than filling it in."""
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
    environment.filters["capital"] = capital
    return environment


def _colors(runs: Sequence[RunView]) -> dict[str, Mapping[str, str]]:
    return {"light": css_variables(runs), "dark": css_variables(runs, dark=True)}


def class_table(view: ReportView) -> ClassTable | None:
    """Every class from most to fewest training images; None where nothing was measured by class."""
    measured = [(run, recalls) for run in view.runs if (recalls := recall_by_class(run)) is not None]
    if not view.class_counts or not measured:
        return None
    columns = [
        (f"{run.name}, {words_of(view.runs).by_class}", [Cell(value, _plain(value)) for value in recalls])
        for run, recalls in measured
    ]
    against = reference(view)
    taught = [(run, recalls) for run, recalls in measured if run.role == "student" and run is not against]
    base = None if against is None or len(taught) > _DELTAS_UP_TO else recall_by_class(against)
    if against is not None and base is not None:
        for run, recalls in taught:
            found = [Cell(value, _signed(value)) for value in deltas(recalls, base)]
            columns.append((f"{run.name} against {against.name}", found))
    third_of = {c: name for name, members in thirds(view.class_counts).items() for c in members}
    return ClassTable(
        columns=[title for title, _ in columns],
        rows=[
            ClassRow(view.class_names[c], view.class_counts[c], third_of[c], [cells[c] for _, cells in columns])
            for c in class_order(view.class_counts)
        ],
        deltas=len(columns) > len(measured),
    )


@cache
def _asset(name: str) -> str:
    return (resources("distail.report") / "assets" / name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _safe_json(data: dict[str, object]) -> str:
    # Inside <script> HTML knows no entities: what could end or open a tag is written as a JSON escape instead.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _facts(view: ReportView) -> list[tuple[str, str]]:
    facts = []
    counts, words = view.class_counts, words_of(view.runs)
    if view.comparison is not None and view.comparison.seeds:
        facts += [("Seeds", ", ".join(map(str, view.comparison.seeds))), ("Baseline", view.comparison.baseline)]
    if counts:
        facts += [
            ("Positive labels" if words.multi_label else "Training images", f"{sum(counts):,}"),
            ("Classes", f"{len(counts):,}"),
            ("Largest to smallest class", f"{max(counts):,} to {min(counts):,}"),
        ]
    if view.subset_sha256:
        facts.append(("Training subset", view.subset_sha256[:12]))
    return facts


def _contents(view: ReportView, charts: Collection[str], classes: bool, gallery: bool) -> list[tuple[str, str]]:
    """The sections that this page has, in their order."""
    sections = [
        ("results", "Results", bool(view.runs)),
        ("differences", "Differences", bool(difference_tables(view))),
        ("recall", f"{capital(words_of(view.runs).by_class)} against class size", "recall" in charts),
        ("groups", "Head, medium and tail", "thirds" in charts),
        ("flow", "Where tail predictions go", "flow" in charts),
        ("mistakes", "Mistakes", bool(view.mistakes and view.mistakes.wrong)),
        ("gallery", "Gained and lost", gallery),
        ("classes", "Every class", classes),
        ("exported", "Exported files", view.exported is not None),
        ("cost", "Cost", "cost-parameters" in charts or "cost-latency" in charts),
        ("training", "Training", "loss" in charts),
        ("reliability", "Calibration", "reliability" in charts),
        ("configuration", "Configuration", bool(view.config or view.versions)),
    ]
    return [(anchor, name) for anchor, name, there in sections if there]


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
        if chosen_columns([name], taught)
    ]


def _plain(value: float | None) -> str:
    return NO_IMAGE if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    return NO_IMAGE if value is None else signed(value)
