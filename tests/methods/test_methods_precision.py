"""Half precision, autocast, float64, saturated logits: what a loss is computed in."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from distail import Outputs
from helpers.made_batches import made_batch
from helpers.method_cases import CASES, example, make_call, make_method


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_promoted(case, dtype):
    """The same numbers as the rounded logits give in float32."""
    method, call = example(case, dtype=torch.float32, scale=2.0)
    narrow = call.to(dtype)
    terms = narrow(method)
    assert terms.total.dtype == torch.float32
    torch.testing.assert_close(terms.per_sample, narrow.to(torch.float32)(method).per_sample)
    torch.testing.assert_close(terms.total, call(method).total, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("case", CASES)
def test_float32_agrees_with_float64(case):
    (double, call), (single, _) = (example(case, dtype=dtype) for dtype in (torch.float64, torch.float32))
    exact, close = call(double), call.to(torch.float32)(single)
    assert exact.total.dtype == torch.float64
    assert close.total.dtype == torch.float32
    torch.testing.assert_close(close.per_sample.double(), exact.per_sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_autocast_changes_no_digit(case):
    method, call = example(case, dtype=torch.float32)
    outside = call(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = call(method)
    assert inside.total.dtype == torch.float32
    assert torch.equal(inside.per_sample, outside.per_sample)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_saturated_logits_are_finite_in_value_and_gradient(case, dtype):
    batch = made_batch(1, batch_size=6, num_classes=5)
    extreme = torch.tensor([1e4, -1e4, 0.0, 1e4, -1e4], dtype=dtype)
    student = torch.stack([extreme.roll(shift) for shift in (0, 1, 2, 3, 4, 0)]).requires_grad_()
    teacher = torch.stack([extreme.roll(shift) for shift in (0, 0, 3, 1, 4, 2)])
    call = make_call(batch, dtype=dtype)
    call = dataclasses.replace(
        call, student=Outputs(student, call.student.features), teacher=Outputs(teacher, call.teacher.features)
    )
    method = make_method(case, batch.counts, torch.float32)
    for epoch in range(2):
        method.begin_epoch(epoch, 2)
        terms = call(method)
        (gradient,) = torch.autograd.grad(terms.total, student)
        assert torch.isfinite(terms.per_sample).all()
        assert torch.isfinite(gradient).all()
        assert all(torch.isfinite(value).all() for value in terms.statistics.values())


@pytest.mark.parametrize("case", CASES)
def test_constant_logits_and_zero_features_are_finite(case):
    method, call = example(case, dtype=torch.float32)
    zeros = [
        Outputs(torch.zeros_like(side.logits), torch.zeros_like(side.features)) for side in (call.student, call.teacher)
    ]
    for side in zeros:
        side.logits.requires_grad_()
        side.features.requires_grad_()
    terms = dataclasses.replace(call, student=zeros[0], teacher=zeros[1])(method)
    terms.total.backward()
    assert torch.isfinite(terms.per_sample).all()
    assert torch.isfinite(zeros[0].logits.grad).all()
    assert zeros[0].features.grad is None or torch.isfinite(zeros[0].features.grad).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casting_a_method_there_and_back_costs_its_constants_no_digit(case, cast):
    method = make_method(case, [300, 40, 5], torch.float32)
    parameters = {name for name, _ in method.named_parameters()}
    constants = {name: value.clone() for name, value in method.state_dict().items() if name not in parameters}
    getattr(method, cast)().float()
    for name, value in constants.items():
        assert torch.equal(method.state_dict()[name], value)


@pytest.mark.parametrize("case", CASES)
def test_a_method_cast_to_half_still_computes_in_float32(case):
    method, call = example(case, dtype=torch.float32)
    terms = call(method.half())
    assert terms.total.dtype == torch.float32
    assert torch.isfinite(terms.total)


def test_float64_constants_are_not_rounded_on_their_way_to_float64_losses():
    method, call = example("bkd")
    weights = method.targets[0].log_weights.value
    assert weights.dtype == torch.float64
    assert not torch.equal(weights, weights.float().double())
    rounded = make_method("bkd", made_batch(0).counts)
    rounded.targets[0].log_weights.value = weights.float().double()
    assert not torch.equal(call(method).total, call(rounded).total)


def test_a_teacher_of_another_precision_takes_the_student_s():
    method, call = example("everything", dtype=torch.float32)
    teacher = Outputs(call.teacher.logits.double(), call.teacher.features.to(torch.bfloat16))
    mixed = dataclasses.replace(call, teacher=teacher)(method)
    assert mixed.total.dtype == torch.float32
    torch.testing.assert_close(mixed.total, call(method).total, rtol=1e-2, atol=1e-2)
