"""Progress and state: deferral and ramps to the epoch, and a state_dict that resumes exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load, save

from distail import create_method
from distail.methods import Progress
from helpers.made_batches import made_batch
from helpers.method_cases import CASES, STUDENT_DIM, TEACHER_DIM, example, make_call, make_method


def total(method, call):
    return call(method)["distillation"].item()


@pytest.mark.parametrize(
    ("epochs", "defer_until", "first_active"), [(200, 0.8, 160), (10, 0.75, 8), (3, 0.5, 2), (7, 0.0, 0)]
)
def test_bkd_s_weights_start_at_their_epoch(epochs, defer_until, first_active):
    batch = made_batch(0)
    method, call = make_method("bkd", batch.counts, defer_until=defer_until), make_call(batch)
    plain, active = (total(make_method("bkd", batch.counts, beta=beta), call) for beta in (0.0, 0.9999))
    for epoch in range(epochs):
        method.begin_epoch(epoch, epochs)
        assert total(method, call) == pytest.approx(active if epoch >= first_active else plain)


def test_every_share_of_every_length_is_reached_at_its_epoch():
    """No rounding: an epoch is active exactly when epoch >= share * epochs in rational numbers."""
    for epochs in range(1, 60):
        for tenth in range(11):
            for epoch in range(epochs):
                expected = tenth < 10 and 10 * epoch >= tenth * epochs
                assert Progress(epoch, epochs).reached(tenth / 10) == expected


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_without_begin_epoch_a_method_is_at_the_end_of_training(share):
    batch = made_batch(1)
    call = make_call(batch)
    never_told, told = make_method("bkd", batch.counts, defer_until=share), make_method("bkd", batch.counts)
    assert total(never_told, call) == total(told, call)
    never = make_method("bkd", batch.counts, defer_until=1.0)
    assert total(never, call) == pytest.approx(total(make_method("bkd", batch.counts, beta=0.0), call))


def test_dkd_ramps_up_over_the_first_twelfth():
    batch = made_batch(2)
    method, call = make_method("dkd", batch.counts), make_call(batch)
    full = total(method, call)
    for epoch in range(240):
        method.begin_epoch(epoch, 240)
        assert total(method, call) == pytest.approx(min(1, epoch / 20) * full)


def test_dkd_distills_in_a_training_of_one_epoch():
    batch = made_batch(2)
    method, call = make_method("dkd", batch.counts), make_call(batch)
    full = total(method, call)
    method.begin_epoch(0, 1)
    assert total(method, call) == full


@pytest.mark.parametrize(
    ("warmup", "shares"), [(0.0, [1, 1, 1, 1]), (0.5, [0, 0.5, 1, 1]), (1.0, [0, 0.25, 0.5, 0.75])]
)
def test_dkd_s_warmup_is_a_share_of_training(warmup, shares):
    batch = made_batch(2)
    method, call = make_method("dkd", batch.counts, warmup=warmup), make_call(batch)
    full = total(method, call)
    for epoch, share in enumerate(shares):
        method.begin_epoch(epoch, 4)
        assert total(method, call) == pytest.approx(share * full)


def test_ldam_s_reweighting_and_ipwd_s_weights_start_at_their_epoch():
    batch = made_batch(3)
    call = make_call(batch)
    ldam, ipwd = make_method("ce with ldam", batch.counts), make_method("ipwd", batch.counts, start=0.5)
    late, early = make_method("ce with ldam", batch.counts), make_method("ce with ldam", batch.counts, defer_until=1.0)
    for epoch in range(10):
        ldam.begin_epoch(epoch, 10)
        ipwd.begin_epoch(epoch, 10)
        assert torch.equal(call(ldam).total, call(late if epoch >= 8 else early).total)
        assert ("weight_mean" in call(ipwd).statistics) == (epoch >= 5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("epoch", [None, 0, 3, 9])
def test_a_state_dict_resumes_exactly(case, epoch):
    """Through safetensors, into a method that was made afresh, before or after it was told of the epoch."""
    method, call = example(case, dtype=torch.float32)
    if epoch is not None:
        method.begin_epoch(epoch, 10)
    state = load(save({name: value.contiguous() for name, value in method.state_dict().items()}))
    memory = load(save(method.memory_state())) if method.needs.memory else {}
    torch.manual_seed(99)
    resumed = create_method(
        CASES[case], class_counts=made_batch(0).counts, student_dim=STUDENT_DIM, teacher_dim=TEACHER_DIM
    )
    resumed.load_state_dict(state)
    resumed.load_memory_state(memory)
    assert resumed.prepared
    assert resumed.progress == method.progress
    assert torch.equal(call(resumed).per_sample, call(method).per_sample)
    if epoch is not None:
        resumed.begin_epoch(epoch, 10)
        assert torch.equal(call(resumed).per_sample, call(method).per_sample)


@pytest.mark.parametrize("case", CASES)
def test_a_state_dict_is_small_and_holds_tensors_only(case):
    state = example(case)[0].state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert sum(value.numel() for value in state.values()) < 1000


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_as_if_it_had_not_been_interrupted(case):
    """Student weights, method parameters and losses, bit for bit, through a copy made in the middle of an epoch."""

    def train(method, student, batches, losses):
        parameters = [student, *method.trainable_parameters()]
        for call in batches:
            logits = call.student.features @ student
            terms = method(
                type(call.student)(logits, call.student.features), call.teacher, call.target, index=call.index
            )
            losses.append(terms.total.item())
            for parameter, gradient in zip(parameters, torch.autograd.grad(terms.total, parameters), strict=True):
                with torch.no_grad():
                    parameter -= 0.1 * gradient

    counts = made_batch(0).counts
    calls = [make_call(made_batch(seed), seed, torch.float32, grad=False) for seed in range(4)]

    def run(interrupted):
        method = make_method(case, counts, torch.float32)
        student, losses = torch.full((STUDENT_DIM, 7), 0.1, requires_grad=True), []
        for epoch in range(3):
            method.begin_epoch(epoch, 3)
            train(method, student, calls[:2], losses)
            if interrupted:
                kept = copy.deepcopy((method.state_dict(), method.memory_state()))
                method = make_method(case, counts, torch.float32)
                method.load_memory_state(kept[1])
                method.load_state_dict(kept[0])
                method.begin_epoch(epoch, 3)
            train(method, student, calls[2:], losses)
        return losses, student

    (losses, student), (losses_resumed, student_resumed) = run(False), run(True)
    assert losses == losses_resumed
    assert torch.equal(student, student_resumed)


@pytest.mark.parametrize("case", CASES)
def test_a_deep_copy_is_independent_and_the_same(case):
    method, call = example(case)
    other = copy.deepcopy(method)
    assert torch.equal(call(other).total, call(method).total)
    for parameter in other.trainable_parameters():
        parameter.data.zero_()
    assert all(parameter.abs().sum() > 0 for parameter in method.trainable_parameters())


def test_extra_parameters_are_those_of_head_and_projector():
    names = {
        case: sorted(name for name, _ in make_method(case, [5, 4, 3]).named_parameters())
        for case in ("bkd", "ipwd", "krdistill")
    }
    head = ["sample_weights.cls_head.bias", "sample_weights.cls_head.weight"]
    projector = ["representation.projector.bias", "representation.projector.weight"]
    assert names == {"bkd": [], "ipwd": head, "krdistill": projector}
    assert len(make_method("ipwd", [5, 4, 3]).trainable_parameters()) == 2
    assert make_method("bkd", [5, 4, 3]).trainable_parameters() == []


def test_needs_say_what_a_run_must_supply():
    def needs(case):
        return {name for name, value in vars(make_method(case, [5, 4, 3]).needs).items() if value}

    assert needs("ce") == set()
    assert needs("ce with ldam") == {"cosine_classifier"}
    assert needs("kd") == needs("bkd") == needs("wsld") == {"teacher"}
    assert needs("ipwd") == {"teacher", "student_features"}
    assert needs("krdistill") == {"teacher", "student_features", "teacher_features", "class_means"}
    assert needs("ipwd one-stage") == {"student_features", "index", "memory"}
    assert make_method("krdistill", [5, 4, 3], assignment="identity").needs.class_means is False
    assert make_method("dive", [5, 4, 3]).teacher_supervised == "balanced_softmax"
