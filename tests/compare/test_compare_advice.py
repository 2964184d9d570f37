"""The first sentence of a comparison: which student to ship, and only where the numbers carry it."""

from __future__ import annotations

import pytest

from distail.compare.advice import advice, teacher_behind


def figures(balanced, head, tail):
    values = {"balanced_accuracy": balanced, "groups.thirds.head": head, "groups.thirds.tail": tail}
    values["groups.thirds.medium"] = 3 * balanced - head - tail
    return {path: {"mean": mean, "values": {0: mean}} for path, mean in values.items()}


def difference(method, inside_noise, p=0.001, **more):
    return {
        "method": method,
        "figure": "balanced_accuracy",
        "over": "test images",
        "p_corrected": p,
        "inside_noise": inside_noise,
        **more,
    }


def content(rows, differences=(), beyond=(), methods=("ce", "bkd"), seeds=(0, 1)):
    return {
        "baseline": "ce",
        "methods": list(methods),
        "seeds": list(seeds),
        "figures": {"teacher": figures(99.0, 99.0, 99.0), **rows},
        "differences": list(differences),
        "beyond_adjusting": list(beyond),
    }


ROWS = {"ce": figures(60.0, 90.0, 30.0), "bkd": figures(70.0, 85.0, 55.0)}


def test_the_best_student_is_named_with_what_it_brings_and_costs():
    first, second = advice(content(ROWS, [difference("bkd", inside_noise=False)]))
    assert first.startswith("Use bkd")
    assert "70.0 %" in first
    assert "60.0 %" in first
    assert "30.0 to 55.0" in second
    assert "90.0 to 85.0" in second
    assert "60.0 to 70.0" in second, "the medium third may be what it costs"


def test_a_difference_inside_the_noise_ships_nothing_new():
    (only,) = advice(content(ROWS, [difference("bkd", inside_noise=True)]))
    assert only.startswith("Keep ce")
    assert "bkd" in only


def test_a_difference_without_a_p_value_is_not_called_sure():
    first = advice(content(ROWS, [difference("bkd", inside_noise=False, p=None)]))[0]
    assert "not tested" in first


def test_what_was_not_tested_is_not_recommended():
    rows = {**ROWS, "bkd, adjusted": figures(75.0, 80.0, 66.0)}
    (only,) = advice(content(rows, [difference("bkd", inside_noise=False)]))
    assert "bkd, adjusted (75.0 %, ce 60.0 %" in only
    assert "not tested" in only
    assert "adjust: 1" in only
    assert "Use " not in only


def test_a_row_that_was_only_adjusted_can_win_and_its_difference_is_found_the_other_way_round():
    rows = {**ROWS, "ce, adjusted": figures(75.0, 80.0, 66.0)}
    beyond = [difference("ce", inside_noise=False, against="ce, adjusted")]
    assert advice(content(rows, [difference("bkd", inside_noise=False)], beyond))[0].startswith("Use ce, adjusted")


@pytest.mark.parametrize("rows", [{}, {"bkd": ROWS["bkd"]}, {"ce": ROWS["ce"]}])
def test_nothing_is_recommended_where_nothing_can_be_compared(rows):
    assert advice(content(rows)) == []


def test_a_baseline_that_is_best_is_shipped():
    rows = {"ce": figures(70.0, 90.0, 50.0), "bkd": figures(60.0, 90.0, 30.0)}
    assert advice(content(rows))[0].startswith("Use ce")


def test_a_row_that_lost_a_seed_is_no_choice_and_is_named():
    lost = figures(95.0, 95.0, 95.0)
    lost["balanced_accuracy"]["values"] = {1: 95.0}
    rows = {**ROWS, "dkd": lost, "dkd, adjusted": lost}
    differences = [difference("bkd", inside_noise=False)]
    first, *_, last = advice(content(rows, differences, methods=("ce", "bkd", "dkd")))
    assert first.startswith("Use bkd")
    assert "missing" in last
    assert '"dkd", "dkd, adjusted"' in last
    assert not any("missing" in one for one in advice(content(ROWS, differences)))


def free(method, against, value, inside_noise=False):
    return {**difference(method, inside_noise), "against": against, "difference": value}


BEHIND = {**ROWS, "teacher, adjusted": figures(65.0, 80.0, 40.0), "ce, adjusted": figures(72.0, 80.0, 45.0)}
GAIN = free("ce, adjusted", "teacher, adjusted", 7.0)


def test_a_teacher_that_is_worse_than_a_student_without_one_is_told():
    (told,) = teacher_behind(content(BEHIND, beyond=[free("bkd", "ce, adjusted", -2.0), GAIN]), ["ce"])
    assert "65.0 %" in told
    assert "72.0 %" in told


@pytest.mark.parametrize(
    ("rows", "beyond", "without"),
    [
        (BEHIND, free("ce, adjusted", "teacher, adjusted", -7.0), ["ce"]),
        (BEHIND, free("ce, adjusted", "teacher, adjusted", 7.0, inside_noise=True), ["ce"]),
        ({**BEHIND, "bkd": figures(73.0, 85.0, 55.0)}, GAIN, ["ce"]),
        (BEHIND, GAIN, []),
    ],
    ids=["teacher better", "noise", "a taught student is the best", "all are taught"],
)
def test_a_teacher_is_not_called_useless_without_evidence(rows, beyond, without):
    assert teacher_behind(content(rows, beyond=[beyond]), without) == []
