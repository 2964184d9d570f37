from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.errors import MethodError
from distail.functional import inverse_propensity, loss_ratio, standardize
from helpers import numpy_oracle as oracle
from helpers.made_batches import batches, made_batch, quick

ratios = st.sampled_from(["kd_over_cls", "cls_over_kd"])


@quick
@given(batches)
def test_standardized_logits_have_mean_zero_and_population_deviation_one(batch):
    rows = standardize(batch.student)
    np.testing.assert_allclose(rows.mean(dim=1).numpy(), 0.0, atol=1e-9)
    np.testing.assert_allclose(rows.numpy().std(axis=1, ddof=0), 1.0, rtol=1e-9)
    np.testing.assert_allclose(rows.numpy(), oracle.standardize(batch.student.numpy()), rtol=1e-7, atol=1e-9)


@quick
@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.floats(-50, 50))
def test_standardizing_takes_out_scale_and_shift(seed, scale, shift):
    batch = made_batch(seed)
    torch.testing.assert_close(
        standardize(batch.student * scale + shift), standardize(batch.student), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("value", [0.0, 1.0, -1e4, 65504.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_constant_logits_become_zeros(value, dtype):
    rows = standardize(torch.full((2, 5), value, dtype=dtype))
    assert torch.equal(rows, torch.zeros_like(rows))


@quick
@given(batches, ratios, st.sampled_from([None, 1.5, 10.0]), st.booleans())
def test_weights_are_those_of_the_definition(batch, ratio, max_weight, normalize):
    weights = inverse_propensity(
        batch.student, batch.teacher, batch.target, ratio=ratio, max_weight=max_weight, normalize=normalize
    )
    expected = oracle.inverse_propensity(
        batch.student.numpy(), batch.teacher.numpy(), batch.labels, ratio, max_weight, normalize
    )
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-7)


@quick
@given(batches, ratios)
def test_normalized_weights_have_mean_one_and_others_lie_above_one(batch, ratio):
    weights = inverse_propensity(batch.student, batch.teacher, batch.target, ratio=ratio)
    assert weights.mean().item() == pytest.approx(1.0)
    raw = inverse_propensity(batch.student, batch.teacher, batch.target, ratio, max_weight=10.0, normalize=False)
    assert ((raw > 1.0) & (raw <= 10.0)).all()


def test_the_default_ratio_raises_what_the_distilled_head_explains_worse():
    good, bad, target = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([0])
    plain = {"max_weight": None, "normalize": False}
    assert inverse_propensity(bad, good, target, **plain) > 2 > inverse_propensity(good, bad, target, **plain)
    swapped = inverse_propensity(bad, good, target, ratio="cls_over_kd", **plain)
    assert torch.equal(swapped, inverse_propensity(good, bad, target, **plain))


def test_equal_heads_weigh_every_sample_the_same():
    batch = made_batch(0)
    raw = inverse_propensity(batch.student, batch.student, batch.target, max_weight=None, normalize=False)
    torch.testing.assert_close(raw, torch.full_like(raw, 2.0))
    torch.testing.assert_close(inverse_propensity(batch.student, batch.student, batch.target), torch.ones_like(raw))


def test_clip_comes_before_normalization():
    batch = made_batch(7, batch_size=40)
    arguments = (batch.student, batch.teacher, batch.target)
    raw = inverse_propensity(*arguments, max_weight=None, normalize=False)
    limit = raw.median().item()
    clipped = raw.clamp(max=limit)
    torch.testing.assert_close(inverse_propensity(*arguments, max_weight=limit), clipped / clipped.mean())


def test_a_head_that_is_certain_and_right_does_not_divide_by_zero():
    """A thousand classes standardize to a z-score of 32 for the label: its cross-entropy is 0 in float32."""
    certain = torch.zeros(1, 1000)
    certain[0, 3] = 1.0
    weights = inverse_propensity(torch.randn(1, 1000), certain, torch.tensor([3]), max_weight=None, normalize=False)
    assert torch.isfinite(weights).all()
    assert weights.item() > 1e5


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4, 1e15])
def test_extreme_logits_give_finite_weights(scale):
    batch = made_batch(3)
    extreme, plain = batch.student.float() * scale, batch.teacher.float()
    assert torch.isfinite(inverse_propensity(extreme, plain, batch.target)).all()
    assert torch.isfinite(inverse_propensity(plain, extreme, batch.target)).all()


def test_no_gradient_flows_through_a_weight():
    batch = made_batch(4)
    student, teacher = batch.student.requires_grad_(), batch.teacher.requires_grad_()
    assert not inverse_propensity(student, teacher, batch.target).requires_grad
    assert not loss_ratio(student, teacher, batch.target).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype):
    batch = made_batch(5)
    kd, cls = batch.student.to(dtype), batch.teacher.to(dtype)
    for function in (inverse_propensity, loss_ratio):
        weights = function(kd, cls, batch.target)
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, function(kd.float(), cls.float(), batch.target))


@quick
@given(batches)
def test_loss_ratio_is_that_of_the_definition(batch):
    weights = loss_ratio(batch.student, batch.teacher, batch.target)
    expected = oracle.loss_ratio(batch.student.numpy(), batch.teacher.numpy(), batch.labels)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-7, atol=1e-14)
    assert ((weights >= 0) & (weights <= 1)).all()


def test_loss_ratio_of_a_teacher_without_loss_is_one_and_of_a_student_without_loss_zero():
    sure, unsure, target = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([0])
    assert loss_ratio(unsure, sure, target).item() == 1.0
    assert loss_ratio(sure, unsure, target).item() == 0.0
    assert loss_ratio(sure, sure, target).item() == 0.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratio": "cls_over_kl"}, "unknown ratio 'cls_over_kl'. Did you mean 'cls_over_kd'"),
        ({"ratio": ["kd_over_cls"]}, "unknown ratio"),
        ({"max_weight": 0.0}, "max_weight is 0.0"),
        ({"max_weight": math.inf}, "max_weight is inf"),
        ({"cls_logits": torch.zeros(2, 4)}, "CLS logits"),
        ({"target": torch.zeros(3).long()}, "3 labels for 2 rows"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changed, message):
    arguments = {"kd_logits": torch.zeros(2, 3), "cls_logits": torch.zeros(2, 3), "target": torch.zeros(2).long()}
    with pytest.raises(MethodError, match=message):
        inverse_propensity(**{**arguments, **changed})
