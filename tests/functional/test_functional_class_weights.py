from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.errors import MethodError
from distail.functional import class_log_share, effective_number_weights, label_margins
from helpers import numpy_oracle as oracle
from helpers.made_batches import quick

counts_lists = st.lists(st.integers(1, 3000), min_size=2, max_size=12)


@quick
@given(counts_lists, st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999]))
def test_effective_number_weights_are_one_over_the_geometric_sum(counts, beta):
    weights = effective_number_weights(counts, beta)
    assert weights.dtype == torch.float64
    np.testing.assert_allclose(weights.numpy(), oracle.effective_number_weights(counts, beta), rtol=1e-10)
    assert weights.sum().item() == pytest.approx(len(counts), rel=1e-12)


@quick
@given(counts_lists, st.sampled_from([0.1, 0.99, 0.9999]))
def test_rarer_classes_never_weigh_less(counts, beta):
    weights = effective_number_weights(counts, beta)
    order = np.argsort(counts)
    assert (np.diff(weights.numpy()[order]) <= 1e-12).all()


def test_weights_are_equal_where_they_should_be():
    torch.testing.assert_close(effective_number_weights([7] * 5), torch.ones(5, dtype=torch.float64))
    assert torch.equal(effective_number_weights([1, 50, 5000], beta=0.0), torch.ones(3, dtype=torch.float64))


def test_beta_so_close_to_one_that_a_difference_would_cancel():
    counts = [1, 10, 1000]
    inverse = torch.tensor([1 / count for count in counts], dtype=torch.float64)
    expected = inverse / inverse.sum() * 3
    torch.testing.assert_close(effective_number_weights(counts, 1 - 1e-13), expected, rtol=1e-9, atol=0)


def test_the_published_formula_of_cifar100_lt():
    counts = [int(500 * 100 ** (-c / 99)) for c in range(100)]
    raw = (1 - 0.9999) / (1 - np.power(0.9999, counts))
    np.testing.assert_allclose(effective_number_weights(counts).numpy(), raw / raw.sum() * 100, rtol=1e-10)


def test_counts_may_be_any_sequence_or_tensor():
    expected = effective_number_weights([30, 2])
    whole = torch.tensor([30, 2])
    for counts in ((30, 2), np.array([30, 2]), whole, whole.double(), list(whole)):
        assert torch.equal(effective_number_weights(counts), expected)


@pytest.mark.parametrize("function", [effective_number_weights, class_log_share, label_margins])
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([5, 0, 3], "class 1: 0"),
        ([5, -2], "class 1: -2"),
        ([5, 2.5], "class 1: 2.5"),
        ([5, math.nan], "class 1: nan"),
        ([5, math.inf], "class 1: inf"),
        ([5, True], "class 1: True"),
        ([5, None], "class 1: None"),
        ([5, "7"], "class 1: '7'"),
        ([[5, 3], [2, 1]], r"class 0: \[5, 3\]"),
        ([5], "length 1; expected a count for each of at least 2 classes"),
        ([], "length 0; expected a count for each of at least 2 classes"),
        ("12", "expected a sequence or tensor"),
        ({0: 5, 1: 6}, "expected a sequence or tensor"),
        (7, "expected a sequence or tensor"),
    ],
)
def test_counts_that_are_no_counts_are_refused(function, counts, message):
    with pytest.raises(MethodError, match=message):
        function(counts)


def test_many_bad_counts_are_summed_up():
    with pytest.raises(MethodError, match=r"class 0: 0, .*class 4: 0 and 4 more"):
        class_log_share([0] * 9)


@pytest.mark.parametrize("beta", [1.0, -0.1, math.nan, math.inf, "0.9", None, True])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(MethodError, match=r"beta is .*at least 0 and below 1"):
        effective_number_weights([5, 3], beta=beta)


@quick
@given(counts_lists)
def test_shares_sum_to_one(counts):
    np.testing.assert_allclose(class_log_share(counts).exp().numpy(), oracle.shares(counts), rtol=1e-12)


@quick
@given(counts_lists, st.floats(0.01, 2.0))
def test_the_rarest_class_has_the_largest_margin(counts, largest):
    margins = label_margins(counts, largest)
    assert margins.max().item() == pytest.approx(largest)
    assert margins[int(np.argmin(counts))] == margins.max()
    expected = [largest * (min(counts) / count) ** 0.25 for count in counts]
    np.testing.assert_allclose(margins.numpy(), expected, rtol=1e-12)
