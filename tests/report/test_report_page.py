"""The page as text: well formed, self-contained, safe against hostile names, complete without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from distail.report.page import write_page
from distail.report.views import ReportView, RunView

VOID = {"meta", "link", "input", "br", "img", "hr"}
CHARTS = (
    *("recall", "thirds", "shots", "flow", "cost-parameters", "cost-latency"),
    *("loss", "validation", "reliability"),
)
DRAWN = {"path", "line"}
LOADING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "style"}


class Page(HTMLParser):
    """Elements with their attributes, the text of each tag, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.cells: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")
        if tag == "tr":
            self.cells.append([])
        if tag in ("th", "td"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data
        if {"th", "td"} & set(self._open):
            self.cells[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(view: ReportView, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("page") / "report.html", view).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def data_of(page: Page) -> Any:
    position = [attributes.get("id") for attributes in page.all("script")].index("distail-data")
    return json.loads(page.texts["script"][position])


def told(page: Page, chart: str) -> list[dict[str, Any]]:
    """What a chart tells where the pointer is, in the order of its marks."""
    entries = [data.get("values", []) for data in data_of(page)["charts"][chart]["data"]]
    return next(rows for rows in entries if rows and "told" in rows[0])  # type: ignore[no-any-return]


def test_elements_nest_and_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name) in (None, *ids)
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids  # type: ignore[index]


def test_nothing_outside_the_page_is_named_where_a_browser_would_load_it(page: Page, text: str) -> None:
    for _, attributes in page.elements:
        for name in LOADING & attributes.keys():
            assert re.fullmatch(r"#[\w-]+|data:,|data:image/png;base64,[\w+/=]+", attributes[name] or ""), attributes
    assert {tag for tag, _ in page.elements} & {"iframe", "object", "embed", "base", "form"} == set()
    for style in page.texts["style"]:
        assert "url(" not in style
        assert "@import" not in style
    _, _, *own = page.texts["script"]
    assert len(own) == 2
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|eval\(", "".join(own))


def test_only_the_scripts_of_distail_may_run(page: Page) -> None:
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    allowed = re.findall(r"'(sha256-[^']+)'", policy)
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    kinds = [attributes.get("type") for attributes in page.all("script")]
    running = [script for script, kind in zip(page.texts["script"], kinds, strict=True) if kind is None]
    hashed = ["sha256-" + base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in running]
    assert hashed == allowed
    assert len(hashed) == 3
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_hostile_names_come_back_as_they_were_from_the_data(page: Page, view: ReportView, hostile: str) -> None:
    assert data_of(page)["runs"] == [run.name for run in view.runs]
    last = told(page, "recall")[-1]
    assert last["title"] == f"rarest {hostile}"
    assert last["detail"] == "5 training images"
    expected = [f"{run.metrics['per_class_recall'][-1]:.1f} %" for run in view.runs if run.metrics]
    assert last["told"] == [[i, text] for i, text in enumerate(expected)]


def test_hostile_text_stays_text_wherever_it_is_shown(page: Page, text: str, hostile: str) -> None:
    assert text.count("window.hacked=1</script>") == 0
    assert "49" not in page.texts["h1"][0]
    shown = " ".join(page.texts["h1"][0].split())
    assert shown == " ".join(f"an example {hostile}".split())
    for tag in ("title", "h1", "code", "li", "figcaption", "p", "dt", "dd", "th"):
        assert any("</script>" in found for found in page.texts[tag]), tag


def test_headings_descend_without_gaps(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_tables_and_charts_speak_to_those_who_do_not_see_them(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(caption.strip() for caption in page.texts["caption"])
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    charts = [attributes for attributes in page.all("div") if (attributes.get("id") or "").startswith("chart-")]
    assert {chart["id"] for chart in charts} == {f"chart-{name}" for name in CHARTS}
    for chart in charts:
        assert chart["role"] == "img"
        assert re.search(r"\d", chart["aria-label"] or "")
    for attributes in page.all("div"):
        if (attributes.get("class") or "").startswith("scroll"):
            assert attributes["tabindex"] == "0"
            assert attributes.get("aria-label") or attributes.get("aria-labelledby")
    assert page.all("html")[0]["lang"] == "en"


def test_every_figure_is_in_a_table_without_any_script(page: Page, view: ReportView) -> None:
    assert "every number is in the tables" in page.texts["noscript"][0]
    rows = {row[0]: row for row in page.cells if row}
    figures = view.runs[0].metrics
    assert figures is not None
    assert f"{figures['top1']:.1f}" in rows["teacher"]
    assert "1,234" not in rows["teacher"], "seconds of training say how busy the machine was"
    assert {"1.77", "12.50"} <= set(rows["teacher"])
    for c in range(11):
        row = rows[f"class {c}"]
        teacher, kd = (run.metrics["per_class_recall"][c] for run in view.runs[:2])  # type: ignore[index]
        assert row[1] == str(view.class_counts[c])
        assert row[3:5] == [f"{teacher:.1f}", f"{kd:.1f}"]
        points = f"{kd - teacher:+.1f}".replace("-", "−")
        assert row[6] == ("0.0" if points[1:] == "0.0" else points)


def test_missing_values_are_named_and_never_zero(view: ReportView, tmp_path: Path) -> None:
    figures = dict(view.runs[1].metrics or {})
    figures["per_class_recall"] = [*figures["per_class_recall"][:-1], None]
    figures["groups"] = {**figures["groups"], "shots": {"many": 50.0, "medium": None, "few": None}}
    many = [400] * len(view.class_counts)
    runs = [replace(view.runs[1], metrics=figures, best_on_validation=None, latency=None, class_counts=many)]
    page = Page(write_page(tmp_path / "p.html", replace(view, runs=runs)).read_text(encoding="utf-8"))
    result = next(row for row in page.cells if row and row[0].startswith("kd"))
    assert result.count("no such class") == 2
    assert result.count("not measured") == 1
    assert page.cells[-1] != []
    assert any(row and row[0].startswith("rarest") and row[3] == "no test image" for row in page.cells)
    assert told(page, "recall")[-1]["told"] == [[0, "no test image"]]


def test_numbers_that_are_not_finite_do_not_break_the_data(view: ReportView, tmp_path: Path) -> None:
    strange = replace(view.runs[0], history=[{"stage": "teacher", "epoch": 0, "loss": float("nan")}])
    figures = {**(view.runs[1].metrics or {}), "per_class_recall": [float("inf")] * 12}
    runs = [strange, replace(view.runs[1], metrics=figures)]
    page = Page(write_page(tmp_path / "p.html", replace(view, runs=runs)).read_text(encoding="utf-8"))
    assert [entry["told"][1] for entry in told(page, "recall")] == [[1, "no test image"]] * 12


@pytest.mark.parametrize(
    "runs",
    [[], [RunView("kd", "student")], [RunView("kd", "student", history=[{"epoch": 0, "loss": 1.0}])]],
    ids=["nothing", "no figures", "training has begun"],
)
def test_an_unfinished_experiment_still_gives_a_page(tmp_path: Path, runs: list[RunView]) -> None:
    path = write_page(tmp_path / "new" / "p.html", ReportView("begun", runs, problems=["not finished"]))
    page = Page(path.read_text(encoding="utf-8"))
    assert "There are no test metrics yet." in page.texts["p"]
    assert "not finished" in page.texts["li"]
    drawn = {chart.get("id") for chart in page.all("div")} - {None}
    assert drawn == ({"chart-loss"} if runs and runs[0].history else set())


def test_one_student_is_introduced_by_its_numbers(view: ReportView, tmp_path: Path) -> None:
    page = Page(write_page(tmp_path / "p.html", replace(view, runs=view.runs[:2])).read_text(encoding="utf-8"))
    terms = page.texts["dt"]
    assert terms[:3] == ["Top-1", "Balanced accuracy", "Tail third"]
    assert "teacher" in page.texts["dd"][0]


def test_the_chart_library_is_the_one_its_licence_and_sum_belong_to() -> None:
    assets = files("distail.report") / "assets"
    readme = (assets / "README.md").read_text()
    for name in ("vega.min.js", "vega-interpreter.min.js"):
        library = (assets / name).read_bytes()
        assert hashlib.sha256(library).hexdigest() in readme
        assert b"</script" not in library.lower()
    licenses = (assets / "vega.LICENSES.txt").read_text()
    assert "University of Washington" in licenses
    assert "Mike Bostock" in licenses
    assert "-->" not in licenses
    assert sum(len(file.read_bytes()) for file in assets.iterdir()) < 700_000
