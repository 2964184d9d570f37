"""Which point of a grid wins."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distail.compare.plan import Point
from distail.compare.selection import ScoredPoint, best

percent = st.floats(0, 100)


def scored(label, validation):
    return ScoredPoint(Point("kd", label, {"temperature": label}, {}), validation)


def test_a_point_that_lost_a_seed_never_beats_one_that_is_whole():
    whole, broken = scored("whole", {0: 30.0, 1: 31.0}), scored("broken", {1: 90.0})
    assert best([whole, broken]) == best([broken, whole]) == whole.point


def test_points_that_lost_every_seed_leave_no_choice():
    assert best([scored("a", {}), scored("b", {})]) is None
    assert best([scored("a", {}), scored("b", {1: 0.0})]).label == "b"
    assert best([scored("alone", {})]).label == "alone"


@given(st.lists(st.dictionaries(st.sampled_from([0, 1, 2]), percent, min_size=1), min_size=2, max_size=5))
def test_the_best_has_the_most_seeds_and_among_those_the_best_mean(validations):
    points = [scored(str(i), validation) for i, validation in enumerate(validations)]
    won = validations[int(best(points).label)]
    most = max(map(len, validations))
    assert len(won) == most
    totals = [math.fsum(one.values()) for one in validations if len(one) == most]
    assert math.fsum(won.values()) == pytest.approx(max(totals))
