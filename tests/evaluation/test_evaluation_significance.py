"""Seeds, pairs and corrections against their definitions and scipy's own tests."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distail.evaluation.bootstrap import interval_and_p
from distail.evaluation.significance import (
    OVER_IMAGES,
    OVER_SEEDS,
    Difference,
    corrected,
    enough_seeds,
    holm,
    over_images,
    over_seeds,
    seeds_can_tell,
    smallest_effect,
    summarize,
)

percents = st.lists(st.floats(0, 100), min_size=2, max_size=8)


@given(percents)
def test_mean_deviation_and_interval_are_those_of_numpy_and_scipy(values):
    summary = summarize(dict(enumerate(values)))
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if summary.std > 1e-9:
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert summary.interval == pytest.approx(expected, rel=1e-6)
    else:
        assert (summary.std, summary.interval) == (0.0, None)


def test_the_interval_by_hand():
    # t(0.975, 2) = 4.302653: 30, 40, 50 have deviation 10, so the half width is 4.302653 * 10 / sqrt(3).
    low, high = summarize({0: 30.0, 1: 40.0, 2: 50.0}).interval
    assert (low, high) == pytest.approx((40 - 24.841377, 40 + 24.841377), abs=1e-5)


def test_one_seed_has_a_mean_and_no_deviation_and_none_has_nothing():
    one = summarize({3: 41.0})
    assert (one.mean, one.std, one.interval) == (41.0, None, None)
    nothing = summarize({})
    assert (nothing.values, nothing.mean, nothing.std, nothing.interval) == ({}, None, None, None)


@given(percents, st.integers(0, 1000))
def test_the_difference_over_seeds_is_the_paired_t_test(values, seed):
    other = np.random.default_rng(seed).normal(50, 10, len(values))
    found = over_seeds("a", "top1", dict(enumerate(values)), dict(enumerate(other)))
    expected = stats.ttest_rel(values, other)
    assert found.difference == pytest.approx(np.mean(values) - np.mean(other))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_pairs_are_the_seeds_that_both_have():
    found = over_seeds("a", "top1", {0: 50.0, 1: 60.0, 2: 70.0}, {1: 50.0, 2: 50.0, 5: 0.0})
    assert found.difference == 15.0
    assert over_seeds("a", "top1", {0: 50.0}, {1: 50.0}) is None


def test_one_seed_gives_a_difference_without_interval_or_p_and_is_not_called_more_than_noise():
    found = corrected([over_seeds("a", "top1", {0: 50.0}, {0: 40.0})], ["top1"])[0]
    assert found == Difference("a", "top1", 10.0, None, None, None, OVER_SEEDS, True)


@pytest.mark.parametrize("shift", [0.0, 2.5])
def test_differences_without_any_spread_say_nothing_of_how_far_they_move(shift):
    found = over_seeds("a", "worst_class", {0: 50.0 + shift, 1: 30.0 + shift}, {0: 50.0, 1: 30.0})
    assert (found.difference, found.interval, found.p) == (shift, None, None)
    assert corrected([found], ["worst_class"])[0].inside_noise


def test_over_images_the_seeds_are_averaged_before_the_interval():
    random = np.random.default_rng(0)
    own, other = ({seed: random.normal(40 + seed, 1, 500) for seed in (0, 1)} for _ in range(2))
    found = over_images("a", "top1", {0: 42.0, 1: 44.0}, {0: 40.0, 1: 41.0}, own, other)
    mean = ((own[0] - other[0]) + (own[1] - other[1])) / 2
    assert (found.interval, found.p) == interval_and_p(mean)
    assert found.difference == 2.5
    unknown = over_images("a", "top1", {0: 42.0}, {0: 40.0}, own, {1: other[1]})
    assert (unknown.difference, unknown.interval, unknown.p) == (2.0, None, None)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_exactly_what_the_step_down_procedure_rejects(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3, 0.9):
        rejected = set()
        for rank, place in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(int(place))
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_does_not_depend_on_the_order_and_never_lowers_a_p_value(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    shuffled = holm([p_values[i] for i in order])
    assert [shuffled[order.index(i)] for i in range(len(p_values))] == pytest.approx(holm(p_values))
    assert all(before <= after <= 1 for before, after in zip(p_values, holm(p_values), strict=True))


def test_each_kind_of_difference_is_its_own_family():
    def made(p, over):
        return Difference("a", "top1", 1.0, None, p, None, over, True)

    given_ = [made(0.02, OVER_SEEDS), made(0.03, OVER_SEEDS), made(None, OVER_SEEDS), made(0.04, OVER_IMAGES)]
    found = corrected(given_, ["top1"])
    # Three were planned over seeds: that one of them has no p value makes the others' family no smaller.
    assert [one.p_corrected for one in found] == pytest.approx([0.06, 0.06, None, 0.04])
    assert [one.inside_noise for one in found] == [True, True, True, False]
    assert [one.p for one in found] == [one.p for one in given_]


def test_a_metric_that_was_not_planned_is_neither_corrected_nor_makes_others_harder():
    planned = Difference("a", "top1", 1.0, None, 0.03, None, OVER_IMAGES, True)
    others = [replace(planned, metric=f"other {i}", p=0.001) for i in range(20)]
    found = corrected([*others, planned], ["top1"])
    assert (found[-1].p_corrected, found[-1].inside_noise) == (0.03, False)
    assert all(one.p_corrected is None and one.inside_noise and one.p == 0.001 for one in found[:-1])


@pytest.mark.parametrize(("seeds", "tests"), [(2, 1), (2, 25), (3, 15), (5, 6)])
def test_what_seeds_can_tell_at_most_is_where_the_corrected_p_value_crosses(seeds, tests):
    """Differences of mean `effect` deviations: just above it the first of a family leaves the noise, just below not."""
    shape = np.array([(-1.0) ** i for i in range(seeds)])
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    for factor, leaves in ((1.01, True), (0.99, False)):
        values = dict(enumerate(50 + shape + factor * smallest_effect(seeds, tests)))
        one = over_seeds("a", "top1", values, dict.fromkeys(values, 50.0))
        rest = [replace(one, method=f"m{i}", p=1.0) for i in range(tests - 1)]
        assert corrected([one, *rest], ["top1"])[0].inside_noise is not leaves
    assert not seeds_can_tell(enough_seeds(tests) - 1, tests)
    assert seeds_can_tell(enough_seeds(tests), tests)
