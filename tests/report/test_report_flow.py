"""Where tail images end, and which classes the errors name."""

from __future__ import annotations

import numpy as np
import pytest

from distail.report.aggregate import mean_tree, pooled_run
from distail.report.captions import describe_flow
from distail.report.chart_data import OUTCOMES, chart_data, flow_rows, top_confusions
from distail.report.views import ReportView, RunView

FLOW = {
    "head": {"correct": 90.0, "head": 10.0, "medium": 0.0, "tail": 0.0},
    "medium": None,
    "tail": {"correct": 20.0, "head": 50.0, "medium": None, "tail": 30.0},
}


def run(name: str, errors: list[float]) -> RunView:
    return RunView(name, "student", error_flow=FLOW, tail_errors=errors)


def test_outcomes_are_in_one_order_everywhere() -> None:
    runs = [run("kd", [0]), RunView("new", "student")]
    flows = chart_data(ReportView("x", runs)).flow
    assert flows == [[20.0, 30.0, None, 50.0], None]
    assert flow_rows(run("kd", [0])) == [("head", [90.0, 0.0, 0.0, 10.0]), ("tail", [20.0, 30.0, None, 50.0])]
    assert describe_flow(runs, flows) == (
        "Test images of tail classes. kd: 20.0 % right, 30.0 % wrong, another tail class, 50.0 % wrong, a head class."
    )
    assert len(OUTCOMES) == 4


def test_top_confusions_are_the_classes_that_most_errors_name(view: ReportView) -> None:
    errors = [4.0, 0.0, 9.0, 0.5, 0, 0, 0, 0, 0, 0, 0, 1.5]
    found = top_confusions(view, run("kd", errors))
    assert [(item.name, item.third, item.count) for item in found[:2]] == [
        ("class 2", "head", 150),
        ("class 0", "head", 400),
    ]
    assert [item.errors for item in found] == [9.0, 4.0, 1.5, 0.5]
    assert found[0].share == pytest.approx(60.0)
    assert top_confusions(view, run("kd", [0.0] * 12)) == []
    assert top_confusions(ReportView("x"), RunView("new", "student")) == []


def test_over_seeds_flow_and_errors_are_means() -> None:
    other = {**FLOW, "tail": {"correct": 40.0, "head": 30.0, "medium": None, "tail": 30.0}}
    figures = {"top1": 1.0}
    runs = [
        RunView("kd", "student", figures, error_flow=FLOW, tail_errors=[3, 1]),
        RunView("kd", "student", figures, error_flow=other, tail_errors=[4, 0]),
    ]
    pooled = pooled_run("kd", "student", [0, 1], runs)
    assert pooled.error_flow is not None
    assert pooled.error_flow["tail"] == {"correct": 30.0, "head": 40.0, "medium": None, "tail": 30.0}
    assert list(pooled.tail_errors) == [3.5, 0.5]


def test_means_skip_what_is_unknown_and_keep_words() -> None:
    trees = [
        {"a": [1.0, None], "b": {"c": 2}, "stage": "student"},
        {"a": [3.0, 5.0], "b": {"c": 4}, "stage": "student"},
    ]
    assert mean_tree(trees) == {"a": [2.0, 5.0], "b": {"c": 3.0}, "stage": "student"}
    assert mean_tree([None, None]) is None
    values = np.random.default_rng(0).normal(size=(5, 7))
    np.testing.assert_allclose(mean_tree([list(row) for row in values]), values.mean(0))
