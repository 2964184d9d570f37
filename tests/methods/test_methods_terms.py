"""The contract of a call: terms, per-sample losses, statistics; the teacher left alone; gradients where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distail import Terms
from helpers import numpy_oracle as oracle
from helpers.made_batches import made_batch
from helpers.method_cases import CASES, example, make_call, make_method, with_an_epoch_behind

WEIGHT_STATISTICS = {"weight_mean", "weight_min", "weight_p05", "weight_p50", "weight_p95", "weight_max"}


@pytest.mark.parametrize("case", CASES)
def test_total_is_the_mean_of_per_sample_and_the_sum_of_the_terms(case):
    method, call = example(case)
    terms = call(method)
    assert isinstance(terms, Terms)
    assert terms.per_sample.shape == (5,)
    assert torch.equal(terms.per_sample.mean(), terms.total)
    torch.testing.assert_close(sum(terms.values()), terms.total)
    assert all(value.ndim == 0 for value in terms.values())
    assert set(terms) <= {"supervised", "distillation", "representation", "auxiliary"}


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_total_terms_and_per_sample_are_one(case):
    method, call = example(case)
    terms = call(method)
    student = call.student.logits
    whole, parts, samples = (
        torch.autograd.grad(value, student, retain_graph=True)[0]
        for value in (terms.total, sum(terms.values()), terms.per_sample.sum() / 5)
    )
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole, samples)
    assert whole.abs().sum() > 0


@pytest.mark.parametrize("case", CASES)
def test_statistics_are_detached_scalars_that_change_nothing(case):
    method, call = example(case)
    terms = call(method)
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.statistics.values())
    assert torch.equal(call(method).total, terms.total)


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("ce", set()),
        ("drkd", {"rectified_share"}),
        ("ipwd", {*WEIGHT_STATISTICS, "clipped_share"}),
        ("wsld", WEIGHT_STATISTICS),
        ("ltkd", {"cross", "within"}),
        ("dkd", {"target_class", "non_target_class"}),
    ],
)
def test_statistics_by_name(case, names):
    method, call = example(case)
    assert set(call(method).statistics) == names


def test_the_rectified_share_is_the_share_of_teacher_mistakes():
    batch = made_batch(2, batch_size=40)
    terms = make_call(batch)(make_method("drkd", batch.counts))
    mistakes = (batch.teacher.argmax(dim=1) != batch.target).double().mean()
    assert terms.statistics["rectified_share"].item() == pytest.approx(mistakes.item())


def test_the_clipped_share_and_the_weights_before_normalization():
    batch = made_batch(3, batch_size=40)
    method = make_method("ipwd", batch.counts, max_weight=2.0)
    statistics = make_call(batch)(method).statistics
    assert 0 < statistics["clipped_share"] < 1
    assert statistics["weight_max"] == 2.0
    assert 1 < statistics["weight_min"] < statistics["weight_mean"] < 2


@pytest.mark.parametrize("case", CASES)
def test_the_teacher_is_never_written_to_and_never_gets_a_gradient(case):
    method, call = example(case)
    teacher = [call.teacher.logits.requires_grad_(), call.teacher.features.requires_grad_()]
    before = [tensor.detach().clone() for tensor in teacher]
    versions = [tensor._version for tensor in teacher]
    call(method).total.backward()
    for tensor, copy, version in zip(teacher, before, versions, strict=True):
        assert tensor.grad is None
        assert torch.equal(tensor, copy)
        assert tensor._version == version


@pytest.mark.parametrize("case", CASES)
def test_the_student_s_tensors_and_the_labels_are_not_written_to(case):
    method, call = example(case)
    inputs = [call.student.logits, call.student.features, call.target, call.index]
    versions = [tensor._version for tensor in inputs]
    call(method)
    assert versions == [tensor._version for tensor in inputs]


@pytest.mark.parametrize("case", CASES)
def test_inference_tensors_of_a_frozen_teacher_will_do(case):
    method, call = example(case, dtype=torch.float32)
    with torch.inference_mode():
        teacher = type(call.teacher)(call.teacher.logits.clone(), call.teacher.features.clone())
    terms = method(call.student, teacher, call.target, index=call.index)
    terms.total.backward()
    assert torch.equal(terms.total, call(method).total)


@pytest.mark.parametrize("case", [name for name in CASES if "batch" not in name])
def test_gradcheck(case):
    batch = made_batch(4, batch_size=3, num_classes=4, scale=1.0)
    call = make_call(batch)
    method = with_an_epoch_behind(make_method(case, batch.counts), call)
    # the weights of a sample are constants to the gradient, which a finite difference would move
    weighted = ("ipwd", "ipwd one-stage", "ipwd without labels", "wsld", "everything")
    method.sample_weights = None if case in weighted else method.sample_weights

    def total(logits, features):
        return method(type(call.student)(logits, features), call.teacher, call.target, index=call.index).total

    assert torch.autograd.gradcheck(total, (call.student.logits, call.student.features))


@pytest.mark.parametrize("standardize_logits", [True, False])
def test_ipwd_weighs_by_logits_as_they_are_where_asked(standardize_logits):
    batch = made_batch(3)
    method, call = make_method("ipwd", batch.counts, standardize_logits=standardize_logits), make_call(batch)
    cls = method.sample_weights.cls_head(call.student.features).detach().numpy()
    weights = oracle.inverse_propensity(
        batch.student.numpy(), cls, batch.labels, "kd_over_cls", 10.0, True, raw=not standardize_logits
    )
    each = oracle.kl_losses(batch.student.numpy(), [oracle.softmax(z, 4.0) for z in batch.teacher.numpy()], 4.0)
    np.testing.assert_allclose(call(method)["distillation"].item(), (weights * each).mean(), rtol=1e-6)


@pytest.mark.parametrize("case", ["ipwd", "wsld"])
def test_sample_weights_are_constants_to_the_gradient(case):
    method, call = example(case)
    terms = call(method)
    gradient = torch.autograd.grad(terms["distillation"], call.student.logits)[0]
    temperature = method.setup.temperature
    p_s, p_t = (torch.softmax(side.logits / temperature, dim=1) for side in (call.student, call.teacher))
    factor = gradient / (temperature * (p_s - p_t) / 5)
    spread = factor.std(dim=1) / factor.mean(dim=1)
    assert (spread.abs() < 1e-6).all(), "one factor a sample: its weight, and nothing from the weight's own derivative"


def test_terms_are_a_mapping_that_prints_its_parts():
    method, call = example("kd")
    terms = call(method)
    assert list(terms) == ["supervised", "distillation"]
    assert len(terms) == 2
    assert terms["supervised"] is terms["supervised"]
    assert "distillation" in terms
    assert "auxiliary" not in terms
    assert "supervised=" in repr(terms)
    with pytest.raises(KeyError):
        terms["auxiliary"]
