"""Whatever a result or a comparison holds, its folder gives a page."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distail.report.build import report_view
from distail.report.page import render_page

STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 3.5, 1e400, float("nan"), 10**400, "", "text", "12", []),
    *([None], [1, "a"], {}, {"a": 1}, {"top1": "high"}, [[]], [{}], {"test": []}),
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested JSON, but one of each list's elements."""
    inside = content.items() if isinstance(content, dict) else list(enumerate(content))[:1]
    found = [path] if path else []
    for key, value in inside:
        deeper = (*path, key)
        found += places(value, deeper) if isinstance(value, dict | list) else [deeper]
    return found


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def pages(file: Path, folder: Path, at_most: int) -> None:
    content = json.loads(file.read_text())
    draw = random.Random(0)
    everything = [(path, value) for path in places(content) for value in STRANGE]
    for path, value in draw.sample(everything, min(at_most, len(everything))):
        file.write_text(json.dumps(changed(content, path, value)))
        try:
            page = render_page(report_view([folder]))
        except Exception as error:
            pytest.fail(f"{'.'.join(map(str, path))} = {value!r}: {type(error).__name__}: {error}")
        assert page.rstrip().endswith("</html>")


AMOUNTS = pytest.mark.parametrize("at_most", [25, pytest.param(400, marks=pytest.mark.slow)])


@AMOUNTS
def test_any_value_in_a_result_gives_a_page(make_folder: Callable[..., Path], at_most: int) -> None:
    folder = make_folder()
    pages(folder / "result.json", folder, at_most)


@AMOUNTS
def test_any_value_in_a_comparison_gives_a_page(make_comparison: Callable[..., Path], at_most: int) -> None:
    folder = make_comparison(methods=("kd", "bkd"), seeds=(0,))
    pages(folder / "comparison.json", folder, at_most)


@AMOUNTS
def test_any_value_in_a_row_of_the_history_gives_a_page(make_folder: Callable[..., Path], at_most: int) -> None:
    folder = make_folder()
    path = folder / "metrics.jsonl"
    row = json.loads(path.read_text().splitlines()[-1])
    everything = [(place, value) for place in places(row) for value in STRANGE]
    for place, value in random.Random(0).sample(everything, min(at_most, len(everything))):
        path.write_text(json.dumps(changed(row, place, value)) + "\n" + json.dumps({**row, "epoch": 9}) + "\n")
        assert "</html>" in render_page(report_view([folder])), (place, value)
