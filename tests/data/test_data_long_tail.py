from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import distail
from distail.data.dataset import LabeledImages
from distail.data.long_tail import (
    class_counts,
    long_tail_counts,
    long_tail_subset,
    require_every_class,
    short_classes_warning,
    subset_sha256,
)
from distail.errors import DataError


@pytest.mark.parametrize(
    ("num_classes", "largest", "imbalance_factor", "total"),
    [(100, 500, 100, 10_847), (100, 500, 50, 12_608), (10, 5000, 100, 12_406), (10, 5000, 50, 13_996)],
)
def test_published_split_sizes(num_classes: int, largest: int, imbalance_factor: int, total: int) -> None:
    counts = long_tail_counts(num_classes, largest, imbalance_factor)
    assert sum(counts) == total
    assert counts[0] == largest
    assert counts[-1] == largest // imbalance_factor


def test_published_counts_of_cifar10_lt() -> None:
    assert long_tail_counts(10, 5000, 100) == (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)


def test_it_is_public() -> None:
    assert distail.long_tail_counts is long_tail_counts


@given(st.integers(1, 60), st.integers(1, 3000), st.floats(1, 1e4), st.sampled_from(["exp", "step"]))
@settings(deadline=None)
def test_profiles_fall_from_the_largest_and_never_reach_zero(
    num_classes: int, largest: int, imbalance_factor: float, profile: str
) -> None:
    counts = long_tail_counts(num_classes, largest, imbalance_factor, profile)
    assert len(counts) == num_classes
    assert all(type(count) is int for count in counts)
    assert counts[0] == largest
    assert list(counts) == sorted(counts, reverse=True)
    assert min(counts) >= 1
    if num_classes > 1:
        assert counts[-1] == pytest.approx(max(1, largest / imbalance_factor), abs=1.001)


@given(st.integers(2, 40), st.integers(10, 2000), st.floats(1, 500))
@settings(deadline=None)
def test_exponential_profile_against_its_formula(num_classes: int, largest: int, imbalance_factor: float) -> None:
    exponents = -np.arange(num_classes) / (num_classes - 1)
    exact = largest * np.power(np.float64(imbalance_factor), exponents)
    for count, value in zip(long_tail_counts(num_classes, largest, imbalance_factor), exact, strict=True):
        assert count in {max(1, math.floor(value - 1e-9)), max(1, math.floor(value + 1e-9))}


def test_step_profile_gives_the_odd_class_to_the_head() -> None:
    assert long_tail_counts(5, 90, 9, "step") == (90, 90, 90, 10, 10)


def test_factor_one_is_balanced() -> None:
    for profile in ("exp", "step"):
        assert long_tail_counts(7, 30, 1, profile) == (30,) * 7


def test_numpy_integers_are_whole_numbers() -> None:
    assert long_tail_counts(np.int64(2), np.int32(8), np.float32(4)) == (8, 2)


@pytest.mark.parametrize("factor", [0.5, 0, -3, math.inf, math.nan, "100", None, True])
def test_bad_imbalance_factors_are_named(factor: object) -> None:
    with pytest.raises(DataError, match=r"imbalance_factor.*at least 1"):
        long_tail_counts(10, 100, factor)  # type: ignore[arg-type]


@pytest.mark.parametrize("largest", [0, -1, 2.5, "many", True])
def test_bad_sizes_are_named(largest: object) -> None:
    with pytest.raises(DataError, match=r"largest.*at least 1"):
        long_tail_counts(10, largest, 10)  # type: ignore[arg-type]


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'expo'.*'exp'"):
        long_tail_counts(10, 100, 10, "expo")


def test_all_bad_arguments_are_reported_at_once() -> None:
    with pytest.raises(DataError) as error:
        long_tail_counts(0, -5, 0.1, "linear")
    for word in ("num_classes is 0", "largest is -5", "imbalance_factor is 0.1", "'linear'"):
        assert word in str(error.value)


def balanced(num_classes: int, each: int) -> torch.Tensor:
    return torch.arange(num_classes * each) % num_classes


@given(st.integers(2, 12), st.integers(1, 40), st.floats(1, 60), st.sampled_from(["exp", "step"]), st.integers(0, 9))
@settings(deadline=None)
def test_subset_has_exactly_the_counts_asked_for(
    num_classes: int, each: int, factor: float, profile: str, seed: int
) -> None:
    labels = balanced(num_classes, each)
    rows = long_tail_subset(labels, num_classes, factor, profile, seed)
    assert rows.dtype == torch.int64
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert class_counts(labels[rows], num_classes) == long_tail_counts(num_classes, each, factor, profile)


def test_subset_is_a_function_of_the_seed() -> None:
    labels = balanced(5, 40)
    one, same, other = (long_tail_subset(labels, 5, 10, "exp", seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_steeper_subset_lies_within_a_flatter_one() -> None:
    labels = balanced(6, 50)
    flat, steep = (set(long_tail_subset(labels, 6, factor, "exp", 3).tolist()) for factor in (5, 25))
    assert steep < flat


def test_every_image_of_a_class_is_equally_likely() -> None:
    labels = balanced(2, 10)
    kept = torch.zeros(20)
    for seed in range(600):
        kept[long_tail_subset(labels, 2, 5, "exp", seed)] += 1
    assert (kept[0::2] == 600).all()
    assert (kept[1::2] - 120).abs().max() < 45  # 2 of 10 in 600 trials: deviation 9.8


@pytest.mark.parametrize("factor", [None, 1, 1.0])
def test_nothing_is_taken_away_without_a_tail(factor: float | None) -> None:
    labels = torch.tensor([0, 0, 0, 1])
    assert long_tail_subset(labels, 2, factor).tolist() == [0, 1, 2, 3]


def test_unbalanced_data_gives_what_it_has_and_says_so() -> None:
    labels = torch.tensor([0] * 3 + [1] * 100 + [2] * 50)
    rows = long_tail_subset(labels, 3, 4, "exp", 0)
    assert class_counts(labels[rows], 3) == (3, 50, 25)
    warning = short_classes_warning((3, 100, 50), 4, "exp")
    assert warning is not None
    assert "1 of 3 classes" in warning
    assert "class 0 has 3 of 100" in warning


@pytest.mark.parametrize(("counts", "factor"), [((20,) * 4, 10), ((3, 100), None), ((3, 100), 1), ((95, 100), 2)])
def test_balanced_data_and_data_as_they_are_say_nothing(counts: tuple[int, ...], factor: float | None) -> None:
    assert short_classes_warning(counts, factor, "exp") is None


def test_classes_without_images_are_all_listed() -> None:
    with pytest.raises(DataError, match=r"2 of 4 classes(.|\n)*class 1\n(.|\n)*class 3"):
        long_tail_subset(torch.tensor([0, 2]), 4, 10)
    with pytest.raises(DataError, match=r"class 1 \(dog\)"):
        require_every_class((1, 0), ("cat", "dog"))
    with pytest.raises(DataError, match=r"1 of 2 classes has no training row(.|\n)*its rows from the test"):
        require_every_class((1, 0), ("cat", "dog"), noun="row")


def test_labels_out_of_range_are_all_listed() -> None:
    with pytest.raises(DataError) as error:
        class_counts(torch.tensor([0, 7, 7, -1, 2]), 3)
    assert "between 0 and 2" in str(error.value)
    assert "label -1 (1 images)" in str(error.value)
    assert "label 7 (2 images)" in str(error.value)


def test_hash_is_over_images_then_labels() -> None:
    images = torch.randint(0, 256, (3, 1, 2, 2), dtype=torch.uint8)
    labels = torch.tensor([1, 0, 2])
    text = images.numpy().tobytes() + np.asarray([1, 0, 2], dtype="<i8").tobytes()
    assert subset_sha256(LabeledImages(images, labels)) == hashlib.sha256(text).hexdigest()


def test_hash_sees_pixels_labels_and_order() -> None:
    images = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2)
    data = LabeledImages(images, torch.tensor([0, 1]))
    changed = images.clone()
    changed[1, 0, 1, 1] += 1
    others = [
        LabeledImages(changed, data.labels),
        LabeledImages(images, torch.tensor([0, 2])),
        data.subset(torch.tensor([1, 0])),
    ]
    assert len({subset_sha256(each) for each in [data, *others]}) == 4


def test_the_choice_of_images_does_not_change_between_versions() -> None:
    """Published numbers name a subset by its hash: the rows for a seed are part of the contract."""
    rows = long_tail_subset(balanced(10, 50), 10, 10, "exp", 0)
    assert hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest() == PINNED


PINNED = "ec17b71210d7cdc9b67956a03c6c06377dc06ab444022f3e8316222cfb5051d7"
