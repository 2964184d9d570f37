"""Every table of every page in headless Chromium: it fits its window, or a shadow on its right says that it scrolls."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from distail.report.build import write_comparison_report
from distail.report.mistakes import ConfusedPair, Mistake, Mistakes
from distail.report.page import write_page
from distail.report.views import ReportView
from distail.search.page import write_search_page
from helpers.browser import DESK, MARKS, PATIENCE_MS, PHONE

pytestmark = MARKS


def exported(test: dict[str, Any]) -> dict[str, Any]:
    times = [
        {"batch": batch, "threads": threads, "median_ms": 12.5 * batch, "p95_ms": 1300.25 * batch, "calls": 20}
        for batch in (1, 32)
        for threads in (1, 0)
    ]
    shown = ("top1", "balanced_accuracy", *(f"groups.thirds.{name}" for name in ("head", "medium", "tail")))
    differences = {path: {"difference": -0.25, "interval": [-1.5, 12.25], "p": 0.2} for path in shown}
    parity = {"largest_logit_difference": 0.0125, "equal_answers": 98.76, "differences": differences}
    file = {"bytes": 3_400_000, "test": test, "latency": times, "peak_mb": 123.4, "failed": None, "float_layers": None}
    int8 = {**file, "file": "student-int8.onnx", "parity": parity, "float_layers": ["blocks.3.conv2", "classifier"]}
    return {"images": 10_000, "adjusted": False, "files": [{**file, "file": "student.safetensors"}, int8]}


@pytest.fixture
def run_page(view: ReportView, tmp_path: Path) -> Path:
    long = "a-folder-with-a-long-name/" * 3 + "image-{}.png"
    pairs = [ConfusedPair("snow leopard", "domestic cat, short hair", 12, 34.5)]
    sure = [Mistake(long.format(i), "snow leopard", "domestic cat, short hair", 0.99) for i in range(3)]
    mistakes = Mistakes(240, 40, 30, pairs, sure)
    whole = replace(view, exported=exported(dict(view.runs[1].metrics or {})), mistakes=mistakes)
    return write_page(tmp_path / "run.html", whole)


@pytest.fixture
def comparison_page(make_comparison: Callable[..., Path]) -> Path:
    return write_comparison_report(make_comparison())


@pytest.fixture
def search_page(tmp_path: Path) -> Path:
    trial = {
        "state": "finished",
        "words": "balanced_softmax, targets: debias, power; divergence: kl; temperature 2.5; learning rate 0.05",
        "parameters": {"supervised": "balanced_softmax"},
        "method": {},
        "recipe": {},
        "epochs": 9,
        "figure": 51.25,
        "top1": 60.5,
        "top1_loss": 0.5,
        "within_bound": True,
        "problem": None,
        "folder": "runs/trial-0",
    }
    content: Any = {
        "schema_version": 1,
        "name": "a search",
        "seed": 0,
        "metric": "balanced_accuracy",
        "top1_loss": 2.0,
        "rule": "balanced accuracy on the validation split",
        "epochs": 9,
        "seconds": 60.0,
        "budget": {"minutes": None, "trials": 3, "used_up": True},
        "trials": [{**trial, "number": number} for number in range(3)],
        "finalists": [],
        "best": 0,
        "importances": {},
        "comparison": None,
        "statements": ["The best trial is 0."],
    }
    return write_search_page(tmp_path, content)


def shades(page: Any) -> list[float]:
    """How light the darkest of a table's last columns of pixels is, by the median of its rows: text stands in few."""
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as picture:
        gray = picture.convert("L")
    found = []
    for box in (place.bounding_box() for place in page.locator(".scroll").all()):
        right, top, bottom = round(box["x"] + box["width"]), round(box["y"]), round(box["y"] + box["height"])
        columns = [ImageStat.Stat(gray.crop((x, top, x + 1, bottom))) for x in range(right - 12, right)]
        found.append(float(min(column.median[0] for column in columns)))
    return found


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("kind", ["run_page", "comparison_page", "search_page"])
def test_a_table_fits_or_shows_that_it_scrolls(
    request: pytest.FixtureRequest, browser: Any, kind: str, size: tuple[int, int]
) -> None:
    path: Path = request.getfixturevalue(kind)
    with browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme="light") as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(path.as_uri())
        page.eval_on_selector_all("details", "all => all.forEach(details => { details.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        tables = page.locator("table").count()
        assert tables == page.locator(".scroll > table").count() >= 1
        assert page.evaluate("scrollY") == 0, "boxes are counted from the top of the page"
        before, scrolling = shades(page), 0
        page.eval_on_selector_all(".scroll", "all => all.forEach(place => { place.scrollLeft = place.scrollWidth; })")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        for place, first, last in zip(page.locator(".scroll").all(), before, shades(page), strict=True):
            box = place.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0]
            if place.evaluate("place => place.scrollWidth <= place.clientWidth"):
                assert first > 245, "a shadow where there is nothing to scroll to"
                continue
            scrolling += 1
            assert place.evaluate("place => [getComputedStyle(place).overflowX, place.tabIndex]") == ["auto", 0]
            assert first < 225 < 245 < last
        assert scrolling or kind == "search_page" or size == DESK
