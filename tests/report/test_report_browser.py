"""The page in headless Chromium: drawn, sortable, readable on a phone, usable by keyboard, silent on the network."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distail.report.build import write_comparison_report, write_report
from distail.report.page import write_page
from distail.report.views import ReportView
from helpers.browser import DESK, MARKS, PATIENCE_MS, PHONE

CHARTS = (
    *("recall", "thirds", "shots", "flow", "cost-parameters", "cost-latency"),
    *("loss", "validation", "reliability"),
)

pytestmark = MARKS


class Opened:
    """A page, and everything that it said or asked for while it was open."""

    def __init__(self, browser: Any, path: Path, size: tuple[int, int], scheme: str) -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.complaints == []
            assert [url for url in self.requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def hostile_page(view: ReportView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("hostile") / "report.html", view)


@pytest.fixture(scope="module")
def plain_page(large_view: ReportView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    figures = dict(large_view.runs[1].metrics or {})
    figures["per_class_recall"] = [*figures["per_class_recall"][:-1], None]
    runs = [large_view.runs[0], replace(large_view.runs[1], metrics=figures)]
    return write_page(tmp_path_factory.mktemp("plain") / "report.html", replace(large_view, runs=runs))


def column(page: Any, table: str, number: int) -> list[str]:
    cells: list[str] = page.eval_on_selector_all(
        f"{table} tbody tr:not([hidden]) > *:nth-child({number})", "cells => cells.map(cell => cell.textContent)"
    )
    return cells


def marks(page: Any, chart: str) -> int:
    return int(page.locator(f"#chart-{chart} svg .role-mark :is(path, line, text)").count())


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["phone, dark", "desk, light"])
def test_every_chart_is_drawn_and_nothing_overflows(
    browser: Any, hostile_page: Path, size: tuple[int, int], scheme: str
) -> None:
    with Opened(browser, hostile_page, size, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        charts = page.locator(".chart")
        assert charts.count() == len(CHARTS)
        for name in CHARTS:
            assert marks(page, name) >= 3, name
            box = page.locator(f"#chart-{name} svg").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0]
            assert box["height"] > 100
        assert page.evaluate("window.hacked") is None


def test_colors_follow_the_page(browser: Any, plain_page: Path) -> None:
    with Opened(browser, plain_page, DESK, "light") as page:
        colors = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            colors.append(
                page.evaluate(
                    "[getComputedStyle(document.body).backgroundColor, getComputedStyle("
                    "document.querySelector('#chart-loss svg .mark-line [stroke*=series-1]')).stroke]"
                )
            )
        assert colors == [["rgb(253, 253, 251)", "rgb(0, 114, 178)"], ["rgb(20, 23, 26)", "rgb(86, 180, 233)"]]
        page.emulate_media(color_scheme="dark", media="print")
        assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--series-1')") == "#0072B2"


def test_tables_sort_by_mouse_and_by_keyboard(browser: Any, plain_page: Path) -> None:
    with Opened(browser, plain_page, DESK, "light") as page:
        table = "#class-table"
        header = page.locator(f"{table} th").filter(has_text="kd, recall")
        header.get_by_role("button").click()
        *measured, last = column(page, table, 5)
        values = [float(text) for text in measured]
        assert values == sorted(values, reverse=True)
        assert last == "no test image"
        assert header.get_attribute("aria-sort") == "descending"
        header.get_by_role("button").press("Enter")
        *measured, last = column(page, table, 5)
        assert [float(text) for text in measured] == sorted(values)
        assert last == "no test image"
        assert page.locator(f"{table} [aria-sort]").count() == 1
        page.locator(f"{table} th").filter(has_text="Class").get_by_role("button").press(" ")
        assert column(page, table, 1)[:4] == ["species-0", "species-1", "species-2", "species-3"]


def test_a_class_is_found_by_its_name(browser: Any, plain_page: Path) -> None:
    with Opened(browser, plain_page, DESK, "light") as page:
        page.get_by_label("Find a class").fill("IES-42")
        assert column(page, "#class-table", 1) == ["species-42"]
        assert page.get_by_role("status").text_content() == "1 of 100 classes"
        page.get_by_label("Find a class").fill("")
        assert len(column(page, "#class-table", 1)) == 100


def test_models_are_hidden_in_all_charts_at_once_by_keyboard(browser: Any, plain_page: Path) -> None:
    with Opened(browser, plain_page, DESK, "light") as page:
        names = ("recall", "thirds", "loss", "reliability")
        before = [marks(page, name) for name in names]
        chip = page.locator("section[aria-labelledby=recall] .chip").nth(1)
        chip.focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        hidden = [marks(page, name) for name in names]
        assert all(fewer < full for fewer, full in zip(hidden, before, strict=True))
        pressed = page.eval_on_selector_all(".chip[data-run='1']", "all => all.map(chip => chip.ariaPressed)")
        assert set(pressed) == {"false"}
        page.locator("#chart-recall").hover()
        page.locator(".tip").get_by_text("teacher").wait_for()
        assert page.locator(".tip").get_by_text("kd").count() == 0
        chip.focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        assert [marks(page, name) for name in names] == before


def test_pointing_at_a_chart_names_the_class_as_text(browser: Any, hostile_page: Path, hostile: str) -> None:
    with Opened(browser, hostile_page, DESK, "light") as page:
        chart = page.locator("#chart-recall")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 40, box["y"] + box["height"] / 2)
        tip = page.locator(".tip")
        tip.wait_for()
        shown = " ".join(tip.text_content().split())
        assert " ".join(f"rarest {hostile}".split()) in shown
        assert "5 training images" in shown
        assert "kd" in shown
        assert page.evaluate("window.hacked") is None
        for name, said in (("thirds", "medium"), ("loss", "Epoch")):
            chart = page.locator(f"#chart-{name}")
            chart.scroll_into_view_if_needed()
            box = chart.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.locator(".tip").get_by_text(said).wait_for()
        page.locator("h1").hover()
        tip.wait_for(state="hidden")


def test_charts_are_drawn_for_paper_and_back(browser: Any, plain_page: Path) -> None:
    with Opened(browser, plain_page, DESK, "dark") as page:
        width = "document.querySelector('#chart-recall svg').getBoundingClientRect().width"
        opened = "document.querySelector('section[aria-labelledby=configuration] details').open"
        before = page.evaluate(width)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(width) == 660
        assert page.evaluate(opened)
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(width) == before > 660
        assert not page.evaluate(opened)


def test_a_bar_that_cannot_be_drawn_says_why(browser: Any, view: ReportView, tmp_path: Path) -> None:
    figures = dict(view.runs[0].metrics or {})
    figures["groups"] = {**figures["groups"], "thirds": {"head": 50.0, "medium": 40.0, "tail": None}}
    figures["groups"]["shots"] = {"many": None, "medium": None, "few": 9.0}
    counts = [60] * 6 + [5] * 6
    path = write_page(
        tmp_path / "report.html", replace(view, runs=[replace(view.runs[0], metrics=figures)], class_counts=counts)
    )
    with Opened(browser, path, DESK, "light") as page:
        words = {name: page.locator(f"#chart-{name} svg text").all_text_contents() for name in ("thirds", "shots")}
        words = {name: [text.split("  ")[0] for text in texts] for name, texts in words.items()}
        assert words["thirds"].count("no test image") == 1
        assert (words["shots"].count("no such class"), words["shots"].count("no test image")) == (1, 1)
        page.locator("#chart-shots svg text").get_by_text("no test image").hover(force=True)
        page.locator(".tip").get_by_text("no test image").wait_for()


def test_axe_finds_nothing_to_complain_about(browser: Any, hostile_page: Path) -> None:
    with Opened(browser, hostile_page, DESK, "dark") as page:
        assert complaints_of_axe(page) == ""


def blank(page: Any, charts: list[str]) -> list[str]:
    """The charts that show nothing: fewer than eight colors on the screen."""
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as picture:
        screen = picture.convert("RGB")
    found = []
    for name in charts:
        box = page.locator(f"#chart-{name}").bounding_box()
        top = box["y"] + page.evaluate("scrollY")
        part = screen.crop((int(box["x"]), int(top), int(box["x"] + box["width"]), int(top + box["height"])))
        if len(part.getcolors(1 << 24) or []) < 8:
            found.append(name)
    return found


def complaints_of_axe(page: Any) -> str:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is a development dependency")
    page.eval_on_selector_all("details", "all => all.forEach(details => { details.open = true; })")
    found = axe.Axe().run(page)
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["phone, dark", "desk, light"])
def test_a_comparison_is_drawn_fits_and_is_accessible(
    browser: Any, make_comparison: Callable[..., Path], size: tuple[int, int], scheme: str
) -> None:
    def fail(stored: dict[str, Any]) -> None:
        stored["methods"].append("ipwd")
        stored["runs"].append({"method": "ipwd", "seed": 0, "folder": "runs/ipwd-seed0", "state": "failed"})

    path = write_comparison_report(make_comparison(change=fail))
    with Opened(browser, path, size, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        charts = page.eval_on_selector_all(".chart", "all => all.map(chart => chart.id.replace('chart-', ''))")
        assert charts == ["difference-0", "difference-1", *CHARTS]
        assert blank(page, charts) == []
        # A mean over seeds carries a whisker: a line for each student and group.
        assert page.locator("#chart-thirds svg .mark-rule line[stroke='var(--ink)']").count() == 3 * 3
        pictures = page.eval_on_selector_all(".samples img", "all => all.map(image => image.naturalWidth)")
        assert len(pictures) >= 4
        assert set(pictures) == {8}
        shown = page.locator("main").text_content()
        assert "ipwd, seed 0: failed (no reason was recorded)" in shown
        assert "Everything else lies inside the noise." in shown
        assert "inside the noise" in page.locator("section[aria-labelledby=differences] table").first.text_content()
        assert complaints_of_axe(page) == ""


def truncated(folder: Path) -> None:
    content = (folder / "result.json").read_bytes()
    (folder / "result.json").write_bytes(content[: len(content) // 2])
    (folder / "predictions.safetensors").write_bytes(b"damaged")


def killed(folder: Path) -> None:
    for name in ("result.json", "predictions.safetensors", "samples.safetensors"):
        (folder / name).unlink()
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])


def without_predictions(folder: Path) -> None:
    (folder / "predictions.safetensors").write_bytes(b"damaged")
    (folder / "samples.safetensors").write_bytes(b"damaged")


@pytest.mark.parametrize(
    ("damage", "charts", "said"),
    [
        (truncated, ["loss", "validation"], "result.json cannot be read"),
        (killed, ["loss", "validation"], "This run is not finished"),
        (
            without_predictions,
            ["recall", "thirds", "shots", "cost-parameters", "cost-latency", "loss", "validation"],
            "samples.safetensors cannot be used",
        ),
    ],
)
def test_a_broken_run_still_opens(
    browser: Any, make_folder: Callable[..., Path], damage: Callable[[Path], None], charts: list[str], said: str
) -> None:
    folder = make_folder()
    damage(folder)
    with Opened(browser, write_report(folder / "report.html", [folder]), PHONE, "light") as page:
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
        found = page.eval_on_selector_all(".chart", "all => all.map(chart => chart.id.replace('chart-', ''))")
        assert found == charts
        assert blank(page, charts) == []
        assert said in page.locator(".notice").text_content()
        assert complaints_of_axe(page) == ""


def test_the_keyboard_skips_to_the_results_and_nothing_moves_by_itself(browser: Any, plain_page: Path) -> None:
    with Opened(browser, plain_page, DESK, "light") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        behavior = "getComputedStyle(document.documentElement).scrollBehavior"
        assert page.evaluate(behavior) == "smooth"
        page.emulate_media(reduced_motion="reduce")
        assert page.evaluate(behavior) == "auto"
        links = page.eval_on_selector_all(".contents a", "all => all.map(link => link.getAttribute('href'))")
        assert links[0] == "#results"
        assert all(page.locator(link).count() == 1 for link in links)
