"""A comparison's folder as a page: means with deviations, differences, what failed, whatever is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distail.errors import ConfigError
from distail.report.build import report_view, write_comparison_report
from distail.report.differences import difference_tables
from distail.report.page import render_page
from distail.report.results_table import COLUMNS, cell, table_rows

MakeFolder = Callable[..., Path]


def recalls(folder: Path, method: str, seeds: tuple[int, ...]) -> np.ndarray:
    results = [json.loads((folder / f"runs/{method}-seed{seed}/result.json").read_text()) for seed in seeds]
    return np.array([result["student"]["test"]["per_class_recall"] for result in results])


def test_every_method_is_the_mean_of_its_seeds(make_comparison: MakeFolder) -> None:
    folder = make_comparison(seeds=(0, 1, 2))
    view = report_view([folder])
    assert [(run.name, run.role) for run in view.runs] == [
        ("teacher", "teacher"),
        ("ce", "student"),
        ("kd", "student"),
        ("bkd", "student"),
    ]
    bkd = view.runs[3]
    assert bkd.seeds == (0, 1, 2)
    by_class = recalls(folder, "bkd", (0, 1, 2))
    assert bkd.metrics is not None
    np.testing.assert_allclose(bkd.metrics["per_class_recall"], by_class.mean(0))
    tails = by_class[:, -4:].mean(1)
    assert bkd.metrics["groups"]["thirds"]["tail"] == pytest.approx(tails.mean())
    assert bkd.spreads["groups.thirds.tail"].std == pytest.approx(tails.std(ddof=1))
    assert bkd.seconds == pytest.approx(10.25)
    assert sum(item.count for item in bkd.reliability) == 3 * 240
    assert [row["epoch"] for row in bkd.history] == [0, 1, 2, 3]
    assert view.problems == []


def test_cells_say_mean_and_deviation(make_comparison: MakeFolder) -> None:
    row = table_rows(report_view([make_comparison()]).runs)[3]
    tail = COLUMNS["tail"]
    assert row.metrics is not None
    value, deviation = row.metrics["groups"]["thirds"]["tail"], row.spreads["groups.thirds.tail"].std
    assert cell(row, tail) == f"{value:.1f} ± {deviation:.1f}"
    assert cell(row, COLUMNS["seconds"]) == "10"
    assert cell(row, COLUMNS["latency"]) == "23.00", "the median of two seeds"
    assert cell(row, COLUMNS["size"]) == "1.91"


def test_what_is_adjusted_has_rows_and_a_family_of_differences_of_its_own(make_comparison: MakeFolder) -> None:
    def change(stored: dict[str, Any]) -> None:
        stored["figures"]["ce, adjusted"] = stored["figures"]["kd"]
        stored["figures"]["teacher, adjusted"] = stored["figures"]["bkd"]
        stored["taus"] = {"bkd": {"0": 0.5, "1": 0.25}, "ce, adjusted": {"0": 1.0, "1": 1.0}}
        template = {**stored["differences"][0], "over": "test images", "figure": "top1", "against": "ce, adjusted"}
        stored["beyond_adjusting"] = [
            {**template, "method": "bkd", "difference": 1.25, "inside_noise": False},
            {**template, "method": "kd, adjusted", "difference": -0.5, "inside_noise": True},
            {**template, "against": None},
            "no difference",
        ]

    view = report_view([make_comparison(change=change)])
    rows = {row.name: row for row in table_rows(view.runs)}
    assert list(rows) == ["teacher", "teacher, adjusted", "ce", "ce, adjusted", "kd", "bkd (tau 0.25, 0.5)"]
    assert cell(rows["ce, adjusted"], COLUMNS["top1"]) == cell(rows["kd"], COLUMNS["top1"])
    assert [run.name for run in view.runs] == ["teacher", "ce", "kd", "bkd"]  # by which charts and galleries go
    tables = difference_tables(view)
    assert [table.against for table in tables] == ["kd", "kd", "ce, adjusted"]
    ((method, (first, *_)), (other, _)) = tables[-1].rows
    assert (method, other, first.text, first.doubt) == ("bkd", "kd, adjusted", "+1.2", "")
    page = render_page(view)
    assert "Beyond ce, adjusted" in page
    assert "bkd (tau 0.25, 0.5)" in page


def test_one_teacher_for_all_seeds_has_no_deviation(make_comparison: MakeFolder) -> None:
    teacher = report_view([make_comparison()]).runs[0]
    assert teacher.metrics is not None
    assert all(spread.std is None for spread in teacher.spreads.values())


def test_teachers_that_were_trained_come_from_their_own_runs(
    make_comparison: MakeFolder, make_folder: MakeFolder
) -> None:
    folder = make_comparison()
    for seed in (0, 1):
        make_folder(f"comparison/teachers/ce-seed{seed}", method="ce", seed=90 + seed, teacher=False)
    stored = json.loads((folder / "comparison.json").read_text())
    stored["teacher_runs"] = [
        {"seed": seed, "supervised": "ce", "folder": f"teachers/ce-seed{seed}", "state": "finished"} for seed in (0, 1)
    ]
    (folder / "comparison.json").write_text(json.dumps(stored))
    teacher = report_view([folder]).runs[0]
    assert (teacher.name, teacher.role, teacher.seeds, teacher.seconds) == ("teacher", "teacher", (0, 1), 10.25)
    assert teacher.spreads["top1"].std is not None
    assert len(teacher.history) == 4


def test_failed_and_missing_runs_are_said_to_be_missing(make_comparison: MakeFolder) -> None:
    def fail(stored: dict[str, Any]) -> None:
        stored["methods"].append("ipwd")
        stored["runs"] += [
            {"method": "ipwd", "seed": 0, "folder": "runs/ipwd-seed0", "state": "failed", "problem": "loss not finite"},
            {"method": "ipwd", "seed": 1, "folder": "runs/ipwd-seed1", "state": "missing", "problem": None},
        ]

    folder = make_comparison(change=fail)
    view = report_view([folder])
    assert view.comparison is not None
    assert view.comparison.missing == ["ipwd, seed 0: failed (loss not finite)", "ipwd, seed 1: not run"]
    assert view.runs[-1].name == "ipwd"
    assert view.runs[-1].metrics is None
    text = write_comparison_report(folder).read_text(encoding="utf-8")
    assert "ipwd, seed 0: failed (loss not finite)" in text
    assert "bkd lies above kd on the tail third." in text
    assert text.rstrip().endswith("</html>")


def test_a_run_whose_folder_is_gone_keeps_its_figures(make_comparison: MakeFolder) -> None:
    folder = make_comparison()
    shutil.rmtree(folder / "runs")
    view = report_view([folder])
    bkd = view.runs[-1]
    assert bkd.metrics is not None
    assert bkd.metrics["top1"] > 0
    assert bkd.metrics["per_class_recall"] is None
    assert len(view.problems) == 6
    assert "its folder 'runs/ce-seed0' is not there" in view.problems[0]
    assert "</html>" in write_comparison_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b'{"methods": ["kd"', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "no mapping"),
        (b"{}", None),
        (
            b'{"methods": 3, "seeds": "x", "runs": [1], "figures": [], "differences": {"a": 1}, "statements": 5}',
            "usable",
        ),
        (b'{"methods": ["kd"], "runs": [{"method": "kd", "state": "finished"}], "class_counts": [3, 1]}', "not there"),
        (b'{"methods": ["kd"], "figures": {"kd": {"top1": {"mean": NaN, "values": []}}}, "class_counts": [3]}', None),
        (b'{"differences": [{"method": "kd", "figure": "top1", "difference": 1, "interval": [0]}]}', "usable"),
    ],
)
def test_a_damaged_comparison_still_gives_a_page(tmp_path: Path, content: bytes, message: str | None) -> None:
    (tmp_path / "comparison.json").write_bytes(content)
    view = report_view([tmp_path])
    if message:
        assert any(message in problem for problem in view.problems), view.problems
    assert "There are no test metrics yet." in write_comparison_report(tmp_path).read_text(encoding="utf-8")


def test_a_comparison_that_has_just_begun_says_so(tmp_path: Path) -> None:
    (tmp_path / "comparison.yaml").write_text("name: x\n")
    assert "no finished run yet" in report_view([tmp_path]).problems[0]


def test_folders_that_are_neither_are_told_apart(make_folder: MakeFolder, make_comparison: MakeFolder) -> None:
    run, comparison = make_folder(), make_comparison()
    (run.parent / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"neither a run nor a comparison.*Did you mean '.*comparison'"):
        report_view([run.parent])
    with pytest.raises(ConfigError, match="is a comparison, which has a page of its own"):
        report_view([run, comparison])
    with pytest.raises(ConfigError, match=r"is a file; expected a folder"):
        report_view([run / "config.yaml"])
    with pytest.raises(ConfigError, match=r"no folder.*nowhere'.*\n.*neither"):
        report_view([run.parent / "nowhere", run.parent / "empty"])


def test_of_a_search_its_own_page_is_named(make_comparison: MakeFolder) -> None:
    search = make_comparison().parent
    (search / "search.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is a search.*report\.html.*`distail search`.*comparison'"):
        report_view([search])
