"""Results and comparisons of a version that knew fewer metrics are read like those of today."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distail.cli.show import print_evaluation
from distail.compare.draws import Draw
from distail.compare.plan import Job
from distail.compare.rows import Row
from distail.config.schema import Experiment
from distail.report.build import report_view
from distail.report.page import render_page
from distail.report.results_table import COLUMNS, cell, table_rows
from distail.runner.run_folder import RunFolder

QUICK = {"name": "quick", "data": "digits", "student": "resnet8", "method": "ce"}


def without_gmean(result: dict[str, Any]) -> None:
    for stage in ("teacher", "student"):
        result[stage]["test"].pop("gmean")


@pytest.fixture
def earlier(make_folder: Callable[..., Path]) -> Path:
    return make_folder("earlier", method="kd", change=without_gmean)


def test_evaluation_computes_the_new_metric_and_finds_the_others_as_they_were(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_evaluation(earlier, Console(file=io.StringIO()), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["student"]["gmean"] is not None
    console = Console(file=io.StringIO(), width=200)
    print_evaluation(earlier, console, as_json=False)
    assert "matches the stored predictions" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [{"top1": 1.0}, {"groups": {"shots": {}, "thirds": {}}}, {"unknown": 1.0}])
def test_a_metric_that_differs_is_still_told(make_folder: Callable[..., Path], change: dict[str, Any]) -> None:
    folder = make_folder("changed", method="kd", change=lambda result: result["student"]["test"].update(change))
    console = Console(file=io.StringIO(), width=200)
    print_evaluation(folder, console, as_json=False)
    assert "student: result.json does not match" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_page_says_that_it_was_not_measured(earlier: Path) -> None:
    view = report_view([earlier])
    student = next(row for row in table_rows(view.runs) if row.role == "student")
    assert cell(student, COLUMNS["gmean"]) == "not measured"
    assert cell(student, COLUMNS["top1"]) != "not measured"
    assert not view.problems
    assert "G-mean" in render_page(view)


def test_a_comparison_has_no_values_of_it(earlier: Path) -> None:
    result = RunFolder(earlier).stored_result()
    assert result is not None
    method = Row("kd", "student", {Draw(0): (Job("kd-seed0", Experiment.from_mapping(QUICK)), result)}, [Draw(0)])
    assert method.values("gmean") == {}
    assert method.values("top1") == {0: result["student"]["test"]["top1"]}


def test_an_earlier_comparison_gives_a_page(make_comparison: Callable[..., Path]) -> None:
    def change(stored: dict[str, Any]) -> None:
        for metrics in stored["figures"].values():
            metrics.pop("gmean")
        stored["differences"] = [one for one in stored["differences"] if one["figure"] != "gmean"]

    folder = make_comparison(change=change)
    for path in folder.glob("runs/*/result.json"):
        result = json.loads(path.read_text())
        without_gmean(result)
        path.write_text(json.dumps(result))
    view = report_view([folder])
    assert not view.problems
    for row in table_rows(view.runs):
        assert cell(row, COLUMNS["gmean"]) == "not measured"
    render_page(view)


def test_without_a_latency_the_size_of_the_file_is_shown_alone(make_folder: Callable[..., Path]) -> None:
    folder = make_folder("untimed", change=lambda result: result.pop("deployment"))
    RunFolder(folder).weights("student").write_bytes(bytes(3 * 2**19))
    rows = {row.role: row for row in table_rows(report_view([folder]).runs)[:2]}
    assert cell(rows["student"], COLUMNS["size"]) == "1.50"
    assert cell(rows["student"], COLUMNS["latency"]) == cell(rows["teacher"], COLUMNS["size"]) == "not measured"
    assert "latency: processor time" not in render_page(report_view([folder]))
