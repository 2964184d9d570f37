from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.data.long_tail import class_counts
from distail.data.splits import fixed_test_split, stratified_folds, stratified_split
from distail.errors import DataError

LABELS = st.lists(st.integers(0, 5), min_size=12, max_size=120).map(lambda labels: torch.tensor([*labels, *[0] * 20]))


@given(LABELS, st.floats(0.05, 0.95), st.integers(-3, 5))
@settings(deadline=None)
def test_split_is_a_partition_with_every_class_in_training(labels: torch.Tensor, fraction: float, seed: int) -> None:
    kept, held_out = stratified_split(labels, fraction, seed)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held_out.tolist() == sorted(held_out.tolist())
    before, after = class_counts(labels, 6), class_counts(labels[kept], 6)
    for count, left in zip(before, after, strict=True):
        expected = min(count - 1, math.floor(count * fraction + 0.5)) if count else 0
        assert count - left == expected
        assert left >= min(count, 1)


def test_zero_holds_nothing_out() -> None:
    kept, held_out = stratified_split(torch.tensor([0, 1, 1]), 0, 5)
    assert kept.tolist() == [0, 1, 2]
    assert held_out.dtype == torch.int64
    assert held_out.tolist() == []


def test_split_is_a_function_of_the_seed() -> None:
    labels = torch.arange(200) % 4
    one, same, other = (stratified_split(labels, 0.25, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_image_is_held_out_equally_often() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5)
    times = torch.zeros(15)
    for seed in range(500):
        times[stratified_split(labels, 0.2, seed)[1]] += 1
    assert (times - 100).abs().max() < 42  # deviation 8.9


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, math.nan, math.inf, "0.1", None, True])
def test_bad_fractions_are_refused(fraction: object) -> None:
    with pytest.raises(DataError, match="from 0 to below 1"):
        stratified_split(torch.tensor([0, 1]), fraction, 0)  # type: ignore[arg-type]


def test_a_fraction_that_holds_nothing_out_is_an_error() -> None:
    with pytest.raises(DataError, match="3 images in 3 classes"):
        stratified_split(torch.tensor([0, 1, 2]), 0.5, 0)


def test_the_fixed_fifth_is_fixed() -> None:
    labels = torch.arange(100) % 5
    train, test = fixed_test_split(labels)
    assert class_counts(labels[test], 5) == (4,) * 5
    assert torch.equal(test, fixed_test_split(labels)[1])
    assert len(train) == 80


def test_too_few_images_for_a_test_set_are_told_without_a_fraction_that_nobody_gave() -> None:
    said = r"no test images of its own, and 4 images in 2 classes are too few .* a class of at least 3 images"
    with pytest.raises(DataError, match=said):
        fixed_test_split(torch.tensor([0, 0, 1, 1]))
    assert [len(part) for part in fixed_test_split(torch.tensor([0, 0, 0, 1]))] == [3, 1]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=2, max_size=60),
    st.floats(0.05, 0.9),
    st.integers(0, 99),
)
def test_groups_are_never_torn_apart_and_no_class_is_lost(rows, fraction, seed):
    labels, groups = (torch.tensor(column) for column in zip(*rows, strict=True))
    try:
        kept, held_out = stratified_split(labels, fraction, seed, groups)
    except DataError:
        return  # nothing can be held out, which is told
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(rows)))
    assert not set(groups[kept].tolist()) & set(groups[held_out].tolist())
    assert set(labels[kept].tolist()) == set(labels.tolist())
    again = stratified_split(labels, fraction, seed, groups)
    assert torch.equal(again[1], held_out)


def test_groups_are_held_out_by_about_the_fraction_of_each_class():
    random = np.random.default_rng(0)
    groups = torch.from_numpy(random.integers(0, 200, 2000))
    labels = torch.from_numpy(random.choice(3, p=[0.7, 0.25, 0.05], size=2000))
    for split in (lambda: stratified_split(labels, 0.2, 0, groups), lambda: fixed_test_split(labels, groups)):
        _, held_out = split()
        shares = torch.bincount(labels[held_out]) / torch.bincount(labels)
        assert ((shares - 0.2).abs() < 0.05).all(), shares


@pytest.mark.parametrize("sizes", [[500] + [50] * 10, [1600] + [40] * 10, [2000 // (i + 1) for i in range(30)]])
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.9])
def test_the_largest_group_is_not_held_out_where_another_part_is_nearer_to_the_fraction(sizes, fraction):
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = torch.from_numpy(np.random.default_rng(0).choice(3, p=[0.7, 0.25, 0.05], size=len(groups)))
    kept, held_out = stratified_split(labels, fraction, 0, groups)
    smaller = held_out if fraction < 0.5 else kept
    assert 0 not in groups[smaller]
    assert abs(len(smaller) / len(labels) - min(fraction, 1 - fraction)) <= 0.16
    assert 0 not in groups[fixed_test_split(labels, groups)[1]]


@given(LABELS, st.integers(2, 8), st.integers(0, 99))
@settings(deadline=None)
def test_each_example_is_held_out_by_one_fold_and_classes_are_spread_evenly(labels, folds, seed):
    fold_N = stratified_folds(labels, folds, seed)
    assert torch.equal(stratified_folds(labels, folds, seed), fold_N)
    counts = torch.bincount(labels)
    assert torch.equal(fold_N < 0, counts[labels] == 1), "only what is alone in its class stays in training"
    sizes = torch.bincount(fold_N[fold_N >= 0], minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for label in labels.unique():
        own = torch.bincount(fold_N[labels == label].clamp_min(0), minlength=folds)
        assert own.max() - own.min() <= 1
        assert all((fold_N[labels == label] != fold).any() for fold in range(folds)), "no fold takes the whole class"
    assert not torch.equal(stratified_folds(labels, folds, seed + 1), fold_N) or len(labels) < 25


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=2, max_size=60),
    st.integers(2, 5),
    st.integers(0, 99),
)
def test_folds_keep_groups_whole_and_leave_every_class_something(rows, folds, seed):
    labels, groups = (torch.tensor(column) for column in zip(*rows, strict=True))
    try:
        fold_N = stratified_folds(labels, folds, seed, groups)
    except DataError:
        return  # too few groups or examples, which is told
    assert torch.equal(stratified_folds(labels, folds, seed, groups), fold_N)
    assert all(len(fold_N[groups == group].unique()) == 1 for group in groups.unique())
    assert set(fold_N.tolist()) >= set(range(folds))
    for fold in range(folds):
        assert set(labels[fold_N != fold].tolist()) == set(labels.tolist())


def test_more_folds_than_there_is_to_hold_out_are_told():
    with pytest.raises(DataError, match="9 folds"):
        stratified_folds(torch.tensor([0, 0, 0, 1]), 9, seed=0)
    with pytest.raises(DataError, match="groups"):
        stratified_folds(torch.tensor([0, 0, 0, 1]), 3, 0, torch.tensor([0, 0, 1, 1]))
