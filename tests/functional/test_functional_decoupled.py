from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from torch.nn import functional as F

from distail.errors import MethodError
from distail.functional import decoupled_divergence, kl_divergence
from helpers import numpy_oracle as oracle
from helpers.made_batches import batches, made_batch, quick


@quick
@given(batches)
def test_both_terms_are_those_of_the_definition(batch):
    target_class, non_target = decoupled_divergence(batch.student, batch.teacher, batch.target, batch.temperature)
    expected = oracle.decoupled(batch.student.numpy(), batch.teacher.numpy(), batch.labels, batch.temperature)
    np.testing.assert_allclose(target_class.numpy(), expected[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(non_target.numpy(), expected[1], rtol=1e-6, atol=1e-9)


@quick
@given(batches)
def test_kl_is_tckd_plus_the_other_mass_times_nckd(batch):
    target_class, non_target = decoupled_divergence(batch.student, batch.teacher, batch.target, batch.temperature)
    p_t = torch.softmax(batch.teacher / batch.temperature, dim=1)
    rest = 1 - p_t.gather(1, batch.target[:, None])[:, 0]
    whole = kl_divergence(batch.student, p_t, batch.temperature) / batch.temperature**2
    torch.testing.assert_close(target_class + rest * non_target, whole, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("teacher", [[1e4, 0.0, -1e4], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("student", [[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4], [1e4, 1e4, 1e4]])
def test_saturated_logits_are_finite_in_value_and_gradient(student, teacher, label, dtype):
    z = torch.tensor([student], dtype=dtype, requires_grad=True)
    terms = decoupled_divergence(z, torch.tensor([teacher], dtype=dtype), torch.tensor([label]), 1.0)
    sum(terms).sum().backward()
    assert all(torch.isfinite(term).all() for term in terms)
    assert torch.isfinite(z.grad).all()


def test_saturation_costs_no_digits_of_the_other_classes():
    """With the label at 1e4, float32 log-probabilities of the others are rounded to 1e-3; their differences are not."""
    student, teacher = torch.tensor([[1e4, 0.1, 0.2]]), torch.tensor([[1e4, 0.3, 0.1]])
    _, non_target = decoupled_divergence(student, teacher, torch.tensor([0]), 1.0)
    p_t, p_s = (torch.softmax(torch.tensor(z, dtype=torch.float64), dim=0) for z in ([0.3, 0.1], [0.1, 0.2]))
    assert non_target.item() == pytest.approx(F.kl_div(p_s.log(), p_t, reduction="sum").item(), rel=1e-5)


def test_two_classes_have_nothing_but_the_target_class():
    batch = made_batch(0, num_classes=2)
    target_class, non_target = decoupled_divergence(batch.student, batch.teacher, batch.target, 1.0)
    assert torch.equal(non_target, torch.zeros_like(non_target))
    torch.testing.assert_close(target_class, kl_divergence(batch.student, torch.softmax(batch.teacher, dim=1), 1.0))


def test_gradcheck_and_no_gradient_for_the_teacher():
    batch = made_batch(1, batch_size=3, num_classes=4)
    teacher = batch.teacher.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: torch.stack(decoupled_divergence(z, teacher.detach(), batch.target, 2.0)),
        batch.student.requires_grad_(),
    )
    torch.stack(decoupled_divergence(batch.student, teacher, batch.target, 2.0)).sum().backward()
    assert teacher.grad is None


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(MethodError, match=r"student logits.*teacher logits"):
        decoupled_divergence(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2).long(), 1.0)
    with pytest.raises(MethodError, match="label 9"):
        decoupled_divergence(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([9, 0]), 1.0)
