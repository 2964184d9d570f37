from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.errors import MethodError
from distail.functional import effective_number_weights, power_logits, reweigh_logits, reweigh_targets, swap_rectify
from helpers import numpy_oracle as oracle
from helpers.made_batches import batches, made_batch, quick


@quick
@given(batches)
def test_swap_is_the_exchange_of_two_entries(batch):
    repaired = swap_rectify(batch.teacher, batch.target)
    np.testing.assert_array_equal(repaired.numpy(), oracle.swap(batch.teacher.numpy(), batch.labels))


@quick
@given(batches)
def test_after_a_swap_the_label_is_a_largest_entry_and_the_values_are_the_same(batch):
    repaired = swap_rectify(batch.teacher, batch.target)
    assert torch.equal(repaired.gather(1, batch.target[:, None])[:, 0], repaired.max(dim=1).values)
    assert torch.equal(repaired.sort(dim=1).values, batch.teacher.sort(dim=1).values)
    assert torch.equal(swap_rectify(repaired, batch.target), repaired)


def test_a_correct_teacher_is_left_alone():
    teacher = torch.tensor([[9.0, 1.0, 2.0], [0.0, 0.0, 5.0]])
    assert torch.equal(swap_rectify(teacher, torch.tensor([0, 2])), teacher)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_label_that_ties_with_the_largest_counts_as_correct(label):
    teacher = torch.tensor([[4.0, 4.0, 4.0]])
    assert torch.equal(swap_rectify(teacher, torch.tensor([label])), teacher)
    teacher = torch.tensor([[4.0, 1.0, 4.0]])
    expected = torch.tensor([[4.0, 1.0, 4.0]]) if label != 1 else torch.tensor([[1.0, 4.0, 4.0]])
    assert torch.equal(swap_rectify(teacher, torch.tensor([label])), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_swap_keeps_dtype_values_and_the_teacher_s_tensor(dtype):
    teacher = torch.tensor([[3.0, 1e4, -1e4]], dtype=dtype)
    before = teacher.clone()
    repaired = swap_rectify(teacher, torch.tensor([2]))
    assert repaired.dtype == dtype
    assert torch.equal(repaired, torch.tensor([[3.0, -1e4, 1e4]], dtype=dtype))
    assert torch.equal(teacher, before)


@quick
@given(batches, st.sampled_from([0.0, 0.9, 0.9999]))
def test_reweighed_targets_are_weights_times_probabilities(batch, beta):
    weights = effective_number_weights(batch.counts, beta)
    targets = reweigh_targets(batch.teacher, weights, batch.temperature)
    expected = oracle.reweigh(batch.teacher.numpy(), weights.numpy(), batch.temperature)
    np.testing.assert_allclose(targets.numpy(), expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(targets.sum(dim=1).numpy(), 1.0)


@quick
@given(batches, st.floats(1e-3, 1e3))
def test_only_the_ratios_of_weights_matter(batch, factor):
    weights = effective_number_weights(batch.counts)
    one = reweigh_targets(batch.teacher, weights, batch.temperature)
    other = reweigh_targets(batch.teacher, weights * factor, batch.temperature)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@quick
@given(batches)
def test_equal_weights_change_no_target(batch):
    same = reweigh_targets(batch.teacher, torch.ones(batch.teacher.shape[1]), batch.temperature)
    torch.testing.assert_close(same, torch.softmax(batch.teacher / batch.temperature, dim=1))


@quick
@given(batches, st.floats(0.1, 3.0))
def test_power_is_the_power_of_the_distribution(batch, exponent):
    repaired = torch.softmax(power_logits(batch.teacher, exponent) / batch.temperature, dim=1)
    expected = oracle.power(batch.teacher.numpy(), exponent, batch.temperature)
    np.testing.assert_allclose(repaired.numpy(), expected, rtol=1e-9, atol=1e-300)


def test_exponent_zero_is_uniform_and_one_is_nothing():
    teacher = made_batch(0).teacher
    assert torch.equal(power_logits(teacher, 1.0), teacher)
    assert torch.equal(power_logits(teacher, 0.0), torch.zeros_like(teacher))


def test_repairs_chain_as_their_distributions_do():
    batch = made_batch(3, temperature=4.0)
    weights = effective_number_weights(batch.counts)
    chained = power_logits(reweigh_logits(swap_rectify(batch.teacher, batch.target), weights.log(), 4.0), 0.5)
    swapped = oracle.swap(batch.teacher.numpy(), batch.labels)
    expected = np.sqrt(oracle.reweigh(swapped, weights.numpy(), 4.0))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(torch.softmax(chained / 4.0, dim=1).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_teachers_are_computed_in_float32(dtype):
    teacher = made_batch(1).teacher.to(dtype)
    weights = effective_number_weights(made_batch(1).counts)
    targets = reweigh_targets(teacher, weights, 2.0)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets, reweigh_targets(teacher.float(), weights, 2.0))


def test_saturated_teachers_stay_finite():
    teacher = torch.tensor([[1e4, -1e4, 0.0]])
    targets = reweigh_targets(teacher, torch.tensor([1e-3, 1.0, 10.0]), 1.0)
    assert torch.equal(targets, torch.tensor([[1.0, 0.0, 0.0]]))


def test_no_repair_lets_a_gradient_through():
    teacher = made_batch(2).teacher.requires_grad_()
    target = made_batch(2).target
    weights = torch.ones(7, dtype=torch.float64)
    for repaired in (
        swap_rectify(teacher, target),
        reweigh_logits(teacher, weights.log(), 2.0),
        power_logits(teacher),
        reweigh_targets(teacher, weights, 2.0),
    ):
        assert not repaired.requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: swap_rectify(torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
            "teacher logits are float32 of shape",
        ),
        (lambda: swap_rectify(torch.zeros(2, 3).long(), torch.zeros(2).long()), "int64 of shape"),
        (lambda: swap_rectify(torch.zeros(2, 3), torch.zeros(2)), "target is float32"),
        (lambda: swap_rectify(torch.zeros(2, 3), torch.zeros(2, 3).long()), r"int64 of shape \(2, 3\)"),
        (lambda: swap_rectify(torch.zeros(2, 3), torch.zeros(4).long()), "4 labels for 2 rows"),
        (lambda: swap_rectify(torch.zeros(2, 3), torch.tensor([0, 3])), "label 3 is out of range; expected 0 to 2"),
        (lambda: swap_rectify(torch.zeros(2, 3), torch.tensor([0, -1])), "label -1 is out of range"),
        (lambda: reweigh_targets(torch.zeros(2, 3), torch.ones(4), 1.0), r"shape \(4,\) for 3 classes"),
        (lambda: reweigh_targets(torch.zeros(2, 3), torch.tensor([1.0, 0.0, 1.0]), 1.0), "above 0"),
        (lambda: reweigh_targets(torch.zeros(2, 3), torch.tensor([1.0, torch.nan, 1.0]), 1.0), "above 0"),
        (lambda: reweigh_targets(torch.zeros(2, 3), torch.ones(3), 0.0), "temperature is 0.0"),
        (lambda: power_logits(torch.zeros(2, 3), -0.5), "exponent is -0.5"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(call, message):
    with pytest.raises(MethodError, match=message):
        call()
