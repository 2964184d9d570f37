from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.evaluation.groups import SHOTS, thirds
from distail.report.chart_data import (
    POINTS_UP_TO,
    chart_data,
    class_order,
    curves,
    groups_data,
    moving_mean,
    neighborhood,
    rank_ticks,
    recall_data,
    validation_value,
)
from distail.report.style import STUDENTS, TEACHERS, styles_of
from distail.report.views import ReportView, RunView

values = st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=40)


@settings(deadline=None)
@given(values, st.integers(0, 6))
def test_moving_means_agree_with_numpy(series: list[float | None], half: int) -> None:
    result = moving_mean(series, 2 * half + 1)
    numbers = np.array([math.nan if v is None else v for v in series])
    for i, found in enumerate(result):
        part = numbers[max(0, i - half) : i + half + 1]
        known = part[~np.isnan(part)]
        assert found == (pytest.approx(known.mean()) if len(known) else None)


@given(values)
def test_a_window_of_one_changes_nothing(series: list[float | None]) -> None:
    assert moving_mean(series, 1) == series


@pytest.mark.parametrize(("classes", "window"), [(1, 1), (10, 1), (20, 1), (21, 3), (100, 11), (1000, 101)])
def test_neighborhoods_are_odd_and_near_a_tenth(classes: int, window: int) -> None:
    assert neighborhood(classes) == window


@settings(deadline=None)
@given(st.lists(st.integers(1, 99), min_size=1, max_size=40))
def test_classes_are_drawn_in_the_order_the_thirds_are_cut(counts: list[int]) -> None:
    order = class_order(counts)
    groups = thirds(counts)
    cuts = [len(groups["head"]), len(groups["head"]) + len(groups["medium"])]
    assert set(order[: cuts[0]]) == set(groups["head"])
    assert set(order[cuts[1] :]) == set(groups["tail"])
    ticks = rank_ticks(len(counts))
    assert ticks == sorted(set(ticks))
    assert (ticks[0], ticks[-1]) == (0, len(counts) - 1)


def test_recalls_follow_the_order_of_size(view: ReportView) -> None:
    shuffled = [5, 400, 60]
    run = RunView("kd", "student", {"per_class_recall": [1.0, None, 3.0], "groups": {"thirds": {}, "shots": {}}})
    recall = chart_data(ReportView("x", [run, RunView("no figures", "student")], ["a", "b", "c"], shuffled)).recall
    assert recall is not None
    assert (recall.names, recall.counts) == (["b", "c", "a"], [400, 60, 5])
    assert recall.recalls == [[None, 3.0, 1.0], None]
    assert recall.thirds == [("head", 0, 1), ("medium", 1, 2), ("tail", 2, 3)]


def test_too_many_points_give_way_to_means(view: ReportView) -> None:
    classes = POINTS_UP_TO + 1
    figures = {"per_class_recall": [50.0] * classes, "groups": {"thirds": {}, "shots": {}}}
    data = recall_data([RunView("kd", "student", figures)], ["x"] * classes, [5] * classes)
    few = recall_data(view.runs, view.class_names, view.class_counts)
    assert data is not None
    assert few is not None
    assert (data.points, few.points) == (False, True)


def test_without_figures_or_classes_there_is_nothing_to_draw() -> None:
    data = chart_data(ReportView("x", [RunView("kd", "student")], [], []))
    assert data.recall is None
    assert data.thirds.values == [None]


def test_curves_count_epochs_from_one_and_leave_gaps_out() -> None:
    rows = [
        {"epoch": 0, "loss": 2},
        {"epoch": 1, "loss": math.nan},
        {"epoch": 2, "loss": None},
        {"epoch": 3},
        {"loss": 1.0},
        {"epoch": 4, "loss": 1.5},
    ]
    assert curves([RunView("kd", "student", history=rows)], lambda row: row.get("loss")) == [[(1, 2.0), (5, 1.5)]]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"validation": {"top1": 1.0, "balanced_accuracy": 2.0}}, 2.0),
        ({"validation": {"top1": 1.0}}, 1.0),
        ({"validation": {"top1": 1.0, "balanced_accuracy": 0.0}}, 0.0),
        ({"validation": None}, None),
        ({}, None),
    ],
)
def test_validation_curves_prefer_balanced_accuracy(row: dict[str, object], expected: float | None) -> None:
    assert validation_value(row) == expected


def contrast(a: str, b: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    brighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_the_first_models_stand_out_on_light_and_dark_pages() -> None:
    for style in (TEACHERS[0], *STUDENTS[:4]):
        assert contrast(style.light, "#fdfdfb") >= 3.0
        assert contrast(style.dark, "#14171a") >= 3.0


def test_no_two_models_look_alike_and_many_models_still_get_a_style(view: ReportView) -> None:
    runs = [RunView("t", "teacher"), *(RunView(str(i), "student") for i in range(8))]
    looks = [(style.light, style.path, style.filled) for style in styles_of(runs)]
    assert len(set(looks)) == 9
    shapes = [(style.path, style.filled) for style in styles_of(runs)]
    assert len(set(shapes)) == 9, "symbols alone must tell models apart"
    assert len(styles_of([replace(view.runs[1]) for _ in range(30)])) == 30


def test_a_group_without_a_recall_says_why() -> None:
    recalls = {"thirds": {"head": 90.0, "medium": None, "tail": None}, "shots": dict.fromkeys(SHOTS)}
    run = RunView("kd", "student", {"groups": recalls})
    assert groups_data([run], [500, 50, 30], "thirds").missing == ["no test image"] * 3
    assert groups_data([run], [500, 50, 30], "shots").missing == ["no test image", "no test image", "no such class"]
    assert groups_data([run], [], "shots").missing == ["not measured"] * 3
