"""The limiting cases that methods.md names: two methods that must be one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given

from distail import Outputs, create_method, functional
from helpers.made_batches import batches, quick
from helpers.method_cases import STUDENT_DIM, TEACHER_DIM, make_call, make_method

PLAIN = {"supervised": "ce", "divergence": "kl"}


def composed(batch, **parameters):
    return create_method({**PLAIN, **parameters}, class_counts=batch.counts).double()


def assert_same(call, one, other):
    """The same terms and the same gradient of the student's logits."""
    first, second = call(one), call(other)
    torch.testing.assert_close(first["supervised"], second["supervised"])
    torch.testing.assert_close(first["distillation"], second["distillation"], rtol=1e-6, atol=1e-9)
    parts = [terms["supervised"] + terms["distillation"] for terms in (first, second)]
    gradients = [torch.autograd.grad(part, call.student.logits)[0] for part in parts]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


def with_a_correct_teacher(batch, call):
    teacher = call.teacher.logits.clone()
    teacher[torch.arange(len(teacher)), batch.target] = teacher.max() + 1
    return dataclasses.replace(call, teacher=Outputs(teacher, call.teacher.features))


@quick
@given(batches)
def test_bkd_with_equal_counts_or_beta_zero_is_ce_and_kl(batch):
    call, plain = make_call(batch), composed(batch, temperature=2.0)
    assert_same(call, make_method("bkd", [7] * len(batch.counts)), plain)
    assert_same(call, make_method("bkd", batch.counts, beta=0.0), plain)


@quick
@given(batches)
def test_drkd_with_a_correct_teacher_is_kd(batch):
    call = with_a_correct_teacher(batch, make_call(batch))
    kd = make_method("kd", batch.counts, supervised_weight=0.05, distillation_weight=0.95, temperature=20.0)
    assert_same(call, make_method("drkd", batch.counts), kd)


@quick
@given(batches)
def test_krdistill_without_repairs_is_ce_kl_and_cosine_distillation(batch):
    call = with_a_correct_teacher(batch, make_call(batch))
    method = make_method("krdistill", [3] * len(batch.counts), prior_strength=0.0)  # the shares are a constant then
    assert_same(call, method, composed(batch, temperature=2.0))
    projected = method.representation.projector(call.student.features)
    cosine = torch.nn.functional.cosine_similarity(projected, call.teacher.features, dim=1)
    torch.testing.assert_close(call(method)["representation"], (1 - cosine).mean())


@quick
@given(batches)
def test_ipwd_with_all_weights_one_trains_the_student_as_ce_and_kl(batch):
    call = make_call(batch)
    method = make_method("ipwd", batch.counts, start=1.0)
    assert_same(call, method, composed(batch))
    call(method).total.backward()
    assert call.student.features.grad is None


def test_ipwd_s_second_head_reaches_the_backbone_only_if_asked():
    from helpers.made_batches import made_batch

    batch = made_batch(0)
    for cls_gradient in (False, True):
        call, method = make_call(batch), make_method("ipwd", batch.counts, cls_gradient=cls_gradient)
        call(method).total.backward()
        assert (call.student.features.grad is not None) == cls_gradient
        assert all(parameter.grad is not None for parameter in method.trainable_parameters())


@quick
@given(batches)
def test_balanced_softmax_is_logit_adjustment_at_tau_one_and_tau_zero_is_ce(batch):
    call = make_call(batch)
    balanced = call(make_method("ce with balanced_softmax", batch.counts)).per_sample
    torch.testing.assert_close(balanced, call(make_method("ce with logit_adjusted", batch.counts)).per_sample)
    plain = call(make_method("ce", batch.counts)).per_sample
    for case, parameters in {
        "ce with logit_adjusted": {"tau": 0.0},
        "ce with focal": {"gamma": 0.0},
        "ce with class_balanced": {"beta": 0.0},
        "ce with ldam": {"largest_margin": 0.0, "defer_until": 1.0},
    }.items():
        torch.testing.assert_close(call(make_method(case, batch.counts, **parameters)).per_sample, plain)


@quick
@given(batches)
def test_with_equal_counts_every_correction_by_counts_is_ce(batch):
    call, counts = make_call(batch), [6] * len(batch.counts)
    plain = call(make_method("ce", counts)).per_sample
    for entry in ("balanced_softmax", "logit_adjusted", "class_balanced"):
        torch.testing.assert_close(call(make_method(f"ce with {entry}", counts)).per_sample, plain)


@quick
@given(batches)
def test_dive_at_exponent_one_with_equal_counts_is_ce_and_kl(batch):
    dive = make_method("dive", [4] * len(batch.counts), exponent=1.0)
    plain = composed(batch, temperature=3.0, supervised_weight=0.5, distillation_weight=0.5)
    assert_same(make_call(batch), dive, plain)


@quick
@given(batches)
def test_one_sample_s_dkd_with_its_own_masses_as_weights_is_kl(batch):
    """KL = TCKD + (1 - p_t[y]) * NCKD: a batch of one, with that weight."""
    call = make_call(batch).rows(slice(0, 1))
    p_t = torch.softmax(call.teacher.logits / 4, dim=1)[0, call.target[0]].item()
    dkd = make_method("dkd", batch.counts, non_target_weight=1 - p_t, target_weight=1.0)
    torch.testing.assert_close(call(dkd)["distillation"], call(composed(batch))["distillation"], rtol=1e-6, atol=1e-8)


def test_wsld_of_a_perfect_teacher_is_kd():
    batch_counts = [5, 5, 5]
    student, target = Outputs(torch.randn(4, 3)), torch.tensor([0, 1, 2, 0])
    teacher = Outputs(1e4 * torch.nn.functional.one_hot(target, 3).float())
    wsld = create_method("wsld", class_counts=batch_counts, distillation_weight=1.0)
    kd = create_method({**PLAIN, "temperature": 2.0}, class_counts=batch_counts)
    torch.testing.assert_close(
        wsld(student, teacher, target)["distillation"], kd(student, teacher, target)["distillation"]
    )


@pytest.mark.parametrize("name", ["kd", "bkd", "drkd", "ltkd", "dive", "dkd", "wsld"])
def test_a_student_that_is_its_target_has_no_distillation_loss(name):
    """Labels that the teacher gets right, equal counts and exponent one: every repair is idle."""
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
    parameters = {"exponent": 1.0} if name == "dive" else {}
    if name == "ltkd":  # its rebalanced masses are those of the batch, not of the teacher
        parameters = {"cross_weight": 0.0}
    method = create_method(name, class_counts=[2, 2, 2], **parameters)
    terms = method(Outputs(logits), Outputs(logits.clone()), torch.tensor([0, 2]))
    assert terms["distillation"].abs() < 1e-12


def test_widths_of_the_cases_differ_so_that_a_mix_up_would_show():
    assert STUDENT_DIM != TEACHER_DIM


@quick
@given(batches)
def test_debias_with_tau_t_is_reweigh_by_one_over_n(batch):
    call = make_call(batch)
    debias = composed(batch, targets=[{"name": "debias", "tau": 2.0}], temperature=2.0)
    weights = 1.0 / torch.tensor(batch.counts, dtype=torch.float64)
    target = functional.reweigh_targets(call.teacher.logits, weights, 2.0)
    expected = functional.kl_divergence(call.student.logits, target, 2.0).mean()
    torch.testing.assert_close(call(debias)["distillation"], expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        (functional.remove_prior(call.teacher.logits, batch.counts, 2.0) / 2.0).softmax(1),
        target,
        rtol=1e-6,
        atol=1e-12,
    )


@pytest.mark.parametrize("side", ["teacher", "student"])
@quick
@given(batch=batches)
def test_debias_with_tau_zero_or_equal_counts_is_kl(side, batch):
    call, plain = make_call(batch), composed(batch)
    assert_same(call, composed(batch, targets=[{"name": "debias", "tau": 0.0, "side": side}]), plain)
    even = create_method({**PLAIN, "targets": [{"name": "debias", "side": side}]}, class_counts=[4] * len(batch.counts))
    assert_same(call, even.double(), plain)


@quick
@given(batches)
def test_both_sides_of_debias_have_the_same_optimum(batch):
    """A student that answers as the repaired teacher is at the minimum of both: no loss and no gradient."""
    for side in ("teacher", "student"):
        method = composed(batch, targets=[{"name": "debias", "side": side}], supervised_weight=0.0, temperature=2.0)
        # at T the prior of `side: student` is divided as well: z_s = z_t - log share is its optimum at every T
        student = functional.remove_prior(batch.teacher, batch.counts).requires_grad_()
        terms = method(Outputs(student), Outputs(batch.teacher), batch.target)
        assert abs(terms["distillation"].item()) < 1e-9
        assert torch.autograd.grad(terms.total, student)[0].abs().max() < 1e-7


@quick
@given(batches)
def test_the_student_side_of_debias_is_balanced_softmax_of_a_one_hot_target_at_the_temperature(batch):
    """At `tau` T: of a teacher that has memorized its images, whose target is one-hot at any T."""
    temperature = 2.0
    memorized = 1e4 * torch.nn.functional.one_hot(batch.target, len(batch.counts)).double()
    debias = {"name": "debias", "side": "student", "tau": temperature}
    method = composed(batch, targets=[debias], supervised_weight=0.0, temperature=temperature)
    found = method(Outputs(batch.student), Outputs(memorized), batch.target)["distillation"]
    log_share = torch.tensor(batch.counts).double().div(sum(batch.counts)).log()
    balanced = torch.nn.functional.cross_entropy(batch.student / temperature + log_share, batch.target)
    torch.testing.assert_close(found, temperature**2 * balanced)


@quick
@given(batches)
def test_dist_of_a_student_that_copies_its_teacher_is_nothing(batch):
    call = make_call(batch)
    copied = dataclasses.replace(call, student=Outputs(call.teacher.logits.clone().requires_grad_()))
    terms = copied(make_method("dist", batch.counts, intra_weight=0.0))
    assert abs(terms["distillation"].item()) < 1e-6


@quick
@given(batches)
def test_ls_does_not_see_how_large_or_where_logits_are(batch):
    call = make_call(batch)
    moved = dataclasses.replace(call, teacher=Outputs(3.0 * call.teacher.logits + 5.0))
    method = make_method("ls", batch.counts)
    torch.testing.assert_close(call(method)["distillation"], moved(method)["distillation"], rtol=1e-5, atol=1e-7)
