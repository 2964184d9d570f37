from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distail.evaluation.calibration import ReliabilityBin
from distail.report import captions
from distail.report.chart_data import GroupsData, RecallData, chart_data
from distail.report.views import Adjusted, ReportView, RunView


def figures(top1: float, balanced: float, tail: float | None) -> dict[str, Any]:
    return {
        "top1": top1,
        "balanced_accuracy": balanced,
        "groups": {"thirds": {"head": 50.0, "medium": 40.0, "tail": tail}, "shots": {}},
    }


TEACHER = RunView("teacher", "teacher", figures(44.0, 40.0, 10.0))
KD = RunView("kd", "student", figures(45.0, 41.0, 12.0))
BKD = RunView("bkd", "student", figures(43.0, 42.0, 20.0))


def test_one_student_is_set_against_its_teacher() -> None:
    assert captions.summary_sentence(ReportView("x", [TEACHER, BKD])) == (
        "bkd reaches 43.0 % top-1 (its teacher 44.0 %), 42.0 % balanced accuracy (40.0 %) "
        "and 20.0 % on the tail third (10.0 %)."
    )


def test_without_a_teacher_or_a_tail_nothing_is_claimed_of_them() -> None:
    assert captions.summary_sentence(ReportView("x", [RunView("ce", "student", figures(43.0, 42.0, None))])) == (
        "ce reaches 43.0 % top-1 and 42.0 % balanced accuracy."
    )
    sentence = captions.summary_sentence(
        ReportView("x", [TEACHER, RunView("ce", "student", figures(43.0, 42.0, None))])
    )
    assert sentence == "ce reaches 43.0 % top-1 (its teacher 44.0 %) and 42.0 % balanced accuracy (40.0 %)."


def test_of_several_students_the_best_are_named() -> None:
    assert captions.summary_sentence(ReportView("x", [TEACHER, KD, BKD])) == (
        "Of 2 students bkd has the highest balanced accuracy, 42.0 %, and the highest recall on the tail third, "
        "20.0 %; the teacher has 40.0 % balanced accuracy and 10.0 % on the tail third."
    )
    drkd = RunView("drkd", "student", figures(43.0, 41.5, 30.0))
    assert "42.0 %, and drkd the highest recall on the tail third, 30.0 %." in (
        captions.summary_sentence(ReportView("x", [KD, BKD, drkd]))
    )


def test_a_student_that_an_adjustment_beats_is_not_called_the_best() -> None:
    adjusted = replace(KD, adjusted=Adjusted(figures(44.0, 43.0, 19.0)))
    assert captions.summary_sentence(ReportView("x", [adjusted, BKD])) == (
        "Of 2 students kd adjusted after training has the highest balanced accuracy, 43.0 %, and bkd the highest "
        "recall on the tail third, 20.0 %."
    )


def test_students_that_are_equal_are_all_named() -> None:
    same = replace(KD, name="ce", metrics=figures(45.0, 41.04, 12.0))
    assert captions.summary_sentence(ReportView("x", [KD, same])) == (
        "Of 2 students kd and ce have the highest balanced accuracy, 41.0 %, and the highest recall on the tail "
        "third, 12.0 %."
    )


def test_unfinished_runs_have_no_figures_yet() -> None:
    assert (
        captions.summary_sentence(ReportView("x", [TEACHER, RunView("kd", "student")]))
        == "There are no test metrics yet."
    )


def test_two_teachers_are_not_mistaken_for_one() -> None:
    assert "teacher" not in captions.summary_sentence(ReportView("x", [TEACHER, replace(TEACHER, name="other"), KD]))


def test_noise_is_that_of_the_test_set() -> None:
    bins = (ReliabilityBin(0, 0.5, 300, 0.4, 0.3), ReliabilityBin(0.5, 1, 100, 0.8, 0.7))
    small = replace(KD, metrics=figures(50.0, 41.0, 12.0), reliability=bins)
    note = captions.noise_note(ReportView("x", [TEACHER, small, BKD]))
    assert note is not None
    assert "400 test images tell top-1 to within 4.9 points" in note  # 1.96 * sqrt(0.25 / 400)
    assert captions.noise_note(ReportView("x", [KD])) == "One seed each: half a point is normal noise between seeds."
    assert captions.noise_note(ReportView("x", [TEACHER])) is None


@pytest.mark.parametrize(("top1", "reach"), [(0.0, 39.0), (100.0, 39.0), (50.0, 31.2)])
def test_few_images_leave_doubt_even_where_all_or_none_is_right(top1: float, reach: float) -> None:
    """Wilson (1927) in his own form: the shares p with |p - share| = 1.96 sqrt(p (1 - p) / n); 6 images here."""
    run = replace(KD, metrics=figures(top1, 41.0, 12.0), reliability=[ReliabilityBin(0, 1, 6, 0.5, top1 / 100)])
    share, z, grid = top1 / 100, 1.959964, np.linspace(0, 1, 1_000_001)
    inside = grid[np.abs(grid - share) <= z * np.sqrt(grid * (1 - grid) / 6)]
    assert 100 * max(share - inside.min(), inside.max() - share) == pytest.approx(reach, abs=0.05)
    assert f"6 test images tell top-1 to within {reach} points (95 %)" in str(
        captions.noise_note(ReportView("x", [run]))
    )


def test_half_a_point_is_not_the_noise_of_average_precisions() -> None:
    several = {"mean_average_precision": 40.0, "per_class_average_precision": [40.0], "groups": {"thirds": {}}}
    note = captions.noise_note(ReportView("x", [RunView("kd", "student", several)]))  # type: ignore[arg-type]
    assert note is not None
    assert "half a point" not in note
    assert "half a point" in str(captions.noise_note(ReportView("x", [KD])))


def test_recalls_of_single_classes_are_not_called_means() -> None:
    recalls = [[90.0, 10.0]]
    data = RecallData(["a", "b"], [30, 5], [], window=1, points=True, recalls=recalls, means=recalls)
    assert captions.describe_recall([KD], data) == (
        "Recall of 2 classes, from 30 down to 5 training images. kd from 90 % for the largest to 10 % for the smallest."
    )


def test_recall_of_a_class_without_test_images_is_not_told_of_its_neighbor() -> None:
    recalls = [[90.0, 45.0, None]]
    data = RecallData(["a", "b", "c"], [30, 5, 2], [], window=1, points=True, recalls=recalls, means=recalls)
    assert "to 45 % for the smallest that has test images" in captions.describe_recall([KD], data)


def test_every_chart_is_described_with_numbers_of_every_model(view: ReportView) -> None:
    data = chart_data(view)
    assert data.recall is not None
    described = [
        captions.describe_recall(view.runs, data.recall),
        captions.describe_groups(view.runs, data.thirds),
        captions.describe_curves(view.runs, data.loss, "Training loss", ""),
        captions.describe_reliability(view.runs),
    ]
    for sentence in described:
        assert all(run.name in sentence for run in view.runs)
        assert "None" not in sentence
    assert "from 400 down to 5 training images" in described[0]
    assert "kd from 2.00 in epoch 1 to 0.50 in epoch 4" in described[2]


def test_a_group_without_classes_is_named_so() -> None:
    data = GroupsData(["many", "few"], [1, 0], [[80.0, None], None], [], ["no test image", "no such class"])
    assert captions.describe_groups([KD, RunView("x", "student")], data) == (
        "Mean recall by group. kd: many 80.0 %, few no such class."
    )


def test_reliability_is_weighted_by_images() -> None:
    bins = (
        ReliabilityBin(0, 0.5, 1, 0.4, 1.0),
        ReliabilityBin(0.5, 1, 3, 0.8, 0.0),
        ReliabilityBin(1, 1, 0, None, None),
    )
    assert "kd is 70.0 % confident and 25.0 % right" in captions.describe_reliability([replace(KD, reliability=bins)])
