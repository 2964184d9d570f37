from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from torch.nn import functional as F

from distail import Outputs, create_method
from distail.errors import MethodError
from distail.functional import kl_divergence, kl_of_log_probabilities
from helpers import numpy_oracle as oracle
from helpers.made_batches import batches, made_batch, quick


@quick
@given(batches)
def test_kl_is_the_sum_over_classes_times_t_squared(batch):
    target = torch.softmax(batch.teacher, dim=1)
    losses = kl_divergence(batch.student, target, batch.temperature)
    expected = oracle.kl_losses(batch.student.numpy(), target.numpy(), batch.temperature)
    assert losses.shape == (len(batch.student),)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-8, atol=1e-11)


@quick
@given(batches)
def test_kl_is_never_negative_and_zero_for_the_student_itself(batch):
    target = torch.softmax(batch.teacher / batch.temperature, dim=1)
    assert (kl_divergence(batch.student, target, batch.temperature) > -1e-9).all()
    own = torch.softmax(batch.student / batch.temperature, dim=1)
    assert (kl_divergence(batch.student, own, batch.temperature).abs() < 1e-8).all()


def test_its_mean_is_torch_batchmean_not_the_mean_over_all_entries():
    batch = made_batch(0)
    target = torch.softmax(batch.teacher, dim=1)
    log_p = F.log_softmax(batch.student / 3.0, dim=1)
    expected = 9.0 * F.kl_div(log_p, target, reduction="batchmean")
    torch.testing.assert_close(kl_divergence(batch.student, target, 3.0).mean(), expected)


def test_a_one_hot_target_is_cross_entropy():
    batch = made_batch(1)
    one_hot = F.one_hot(batch.target, 7).double()
    losses = kl_divergence(batch.student, one_hot, 1.0)
    torch.testing.assert_close(losses, F.cross_entropy(batch.student, batch.target, reduction="none"))


def test_saturated_students_and_targets_with_zeros_are_finite_in_value_and_gradient():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    losses = kl_divergence(student, torch.tensor([[0.0, 1.0, 0.0]]), 1.0)
    losses.sum().backward()
    assert losses.item() == pytest.approx(2e4)
    assert torch.isfinite(student.grad).all()


def test_gradient_is_t_times_the_difference_of_distributions():
    batch = made_batch(5)
    student, target = batch.student.requires_grad_(), torch.softmax(batch.teacher, dim=1)
    kl_divergence(student, target, 4.0).sum().backward()
    torch.testing.assert_close(student.grad, 4.0 * (torch.softmax(student / 4.0, dim=1) - target))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_gradcheck(temperature):
    batch = made_batch(2, batch_size=3, num_classes=4)
    target = torch.softmax(batch.teacher, dim=1)
    assert torch.autograd.gradcheck(lambda z: kl_divergence(z, target, temperature), batch.student.requires_grad_())


def test_the_target_gets_no_gradient():
    target = torch.full((2, 3), 1 / 3, requires_grad=True)
    student = torch.zeros(2, 3, requires_grad=True)
    kl_divergence(student, target, 1.0).sum().backward()
    assert target.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype):
    batch = made_batch(3)
    student, target = batch.student.to(dtype), torch.softmax(batch.teacher, dim=1).to(dtype)
    losses = kl_divergence(student, target, 2.0)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, kl_divergence(student.float(), target.float(), 2.0))


def test_of_log_probabilities_has_no_factor():
    log_q, log_p = (F.log_softmax(z, dim=1) for z in (made_batch(4).teacher, made_batch(4).student))
    torch.testing.assert_close(
        9.0 * kl_of_log_probabilities(log_q, log_p), kl_divergence(3.0 * log_p, log_q.exp(), 3.0)
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, "2", True, None])
def test_temperatures_that_are_none_are_refused(temperature):
    with pytest.raises(MethodError, match="temperature is"):
        kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3), temperature)


def test_shapes_that_differ_are_refused():
    with pytest.raises(MethodError, match=r"\(2, 3\) and target probabilities \(2, 4\)"):
        kl_divergence(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)
    with pytest.raises(MethodError, match="student logits are int64"):
        kl_divergence(torch.zeros(2, 3).long(), torch.zeros(2, 3), 1.0)


@pytest.mark.parametrize("temperature", [50.0, 300.0, 1000.0])
@pytest.mark.parametrize("name", ["kd", "dkd", "wsld", "ltkd"])
def test_large_temperatures_keep_the_divergence(name, temperature):
    """Of float32 alone T^2 would make the rounding larger than the loss, and negative as often as not."""
    generator = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(128, 10, generator=generator)
    student = teacher + 0.01 * torch.randn(128, 10, generator=generator)
    target = torch.arange(128) % 10
    losses = []
    for dtype in (torch.float32, torch.float64):
        method = create_method({"name": name, "temperature": temperature}, class_counts=range(10, 110, 10))
        terms = method(Outputs(student.to(dtype)), Outputs(teacher.to(dtype)), target)
        losses.append(terms["distillation"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] >= 0


@pytest.mark.parametrize("temperature", [1000.1, 1e6, float("inf"), 0])
def test_temperatures_without_a_loss_are_refused(temperature):
    with pytest.raises(MethodError, match=r"temperature is .*above 0 and at most 1000"):
        create_method({"name": "kd", "temperature": temperature}, class_counts=[2, 1])
    with pytest.raises(MethodError, match=r"temperature is .*above 0 and at most 1000"):
        kl_divergence(torch.zeros(1, 2), torch.full((1, 2), 0.5), temperature)
