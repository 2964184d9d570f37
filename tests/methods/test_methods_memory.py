"""IPWD's one-stage form: the student's prediction in the epoch before, as its teacher."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from distail import Outputs, create_method
from helpers import numpy_oracle as oracle
from helpers.method_cases import STUDENT_DIM

COUNTS = [12, 6, 2]
SIZE = sum(COUNTS)


def one_stage(name="kd", **parameters):
    torch.manual_seed(0)
    return create_method(name, class_counts=COUNTS, student_dim=STUDENT_DIM, teacher="previous_epoch", **parameters)


def logits_of(epoch, index):
    generator = torch.Generator().manual_seed(epoch)
    return torch.randn(SIZE, 3, generator=generator)[index]


def call(method, epoch, index, target=None):
    index = torch.as_tensor(index)
    features = torch.randn(SIZE, STUDENT_DIM, generator=torch.Generator().manual_seed(50 + epoch))[index]
    target = index % 3 if target is None else target
    return method(Outputs(logits_of(epoch, index), features), None, target, index=index)


def ce(epoch, index):
    return oracle.cross_entropies(logits_of(epoch, torch.as_tensor(index)).double().numpy(), [i % 3 for i in index])


def kl_to_epoch(before, epoch, index):
    p_before = np.array([oracle.softmax(z) for z in logits_of(before, torch.as_tensor(index)).double().numpy()])
    return oracle.kl_losses(logits_of(epoch, torch.as_tensor(index)).double().numpy(), p_before, 1.0)


def test_the_defaults_of_this_form():
    method = one_stage("ipwd")
    assert method.setup.temperature == 1.0
    assert method.previous_epoch.final_weight == 0.8
    assert method.sample_weights.start == 0.5
    kd = one_stage("kd")
    assert (kd.weights.supervised, kd.weights.distillation) == (1.0, 1.0)
    assert one_stage("kd", temperature=3.0, supervised_weight=0.5).setup.temperature == 3.0
    assert one_stage("ipwd", start=0.25).sample_weights.start == 0.25
    assert one_stage("kd", num_samples=7).previous_epoch.memory.written.value.shape == (7,)
    assert one_stage("kd").previous_epoch.memory.written.value.shape == (SIZE,)


def test_epoch_zero_is_the_plain_supervised_loss():
    method, index = one_stage(), [0, 4, 9, 13]
    method.begin_epoch(0, 4)
    for _ in range(2):
        np.testing.assert_allclose(call(method, 0, index).per_sample.numpy(), ce(0, index), rtol=1e-5)


def test_later_epochs_mix_labels_and_the_epoch_before():
    """(1 - a_e) * CE + a_e * KL(p_prev || p_s), a_e = 0.8 * (e + 1) / E: PS-KD's rule, written out."""
    method, index = one_stage(), [3, 4, 9, 19]
    for epoch in range(5):
        method.begin_epoch(epoch, 5)
        terms = call(method, epoch, index)
        a = 0.8 * (epoch + 1) / 5 if epoch else 0.0
        expected = (1 - a) * ce(epoch, index)
        if epoch:
            expected += a * kl_to_epoch(epoch - 1, epoch, index)
        np.testing.assert_allclose(terms.per_sample.numpy(), expected, rtol=2e-3, atol=2e-3)
        assert terms["supervised"].item() == pytest.approx((1 - a) * ce(epoch, index).mean(), rel=1e-5)


def test_the_whole_of_ipwd_s_one_stage_form():
    """L_e = (1 - a_e) * CE + a_e * mean(w * KL) + CE(cls head), w = 1 before half of training."""
    method, index, epochs = one_stage("ipwd"), [0, 1, 2, 8, 15], 4
    head = method.sample_weights.cls_head
    for epoch in range(epochs):
        method.begin_epoch(epoch, epochs)
        terms = call(method, epoch, index)
        features = torch.randn(SIZE, STUDENT_DIM, generator=torch.Generator().manual_seed(50 + epoch))[index]
        cls = head(features).detach().double().numpy()
        labels = [i % 3 for i in index]
        z = logits_of(epoch, torch.as_tensor(index)).double().numpy()
        weights = np.ones(5)
        if epoch >= 2:
            weights = oracle.inverse_propensity(z, cls, labels, "kd_over_cls", 10.0, True)
        a = 0.8 * (epoch + 1) / epochs if epoch else 0.0
        assert terms["supervised"].item() == pytest.approx((1 - a) * ce(epoch, index).mean(), rel=1e-4)
        expected = a * (weights * kl_to_epoch(epoch - 1, epoch, index)).mean() if epoch else 0.0
        assert terms["distillation"].item() == pytest.approx(expected, rel=3e-3, abs=1e-3)
        assert terms["auxiliary"].item() == pytest.approx(oracle.cross_entropies(cls, labels).mean(), rel=1e-4)


def test_samples_that_were_not_drawn_keep_their_older_prediction_and_unseen_ones_the_plain_loss():
    method = one_stage()
    for epoch, seen in enumerate([[0, 1, 2], [2, 3], [4]]):
        method.begin_epoch(epoch, 10)
        call(method, epoch, seen)
    method.begin_epoch(3, 10)
    a = 0.8 * 4 / 10
    terms = call(method, 3, [0, 2, 3, 4, 7]).per_sample.numpy()
    for position, (index, last_seen) in enumerate([(0, 0), (2, 1), (3, 1), (4, 2)]):
        expected = (1 - a) * ce(3, [index]) + a * kl_to_epoch(last_seen, 3, [index])
        np.testing.assert_allclose(terms[position], expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(terms[4], ce(3, [7]), rtol=1e-5)


def test_an_epoch_never_reads_what_it_writes():
    """A sampler with replacement may draw a sample twice in an epoch."""
    method = one_stage()
    method.begin_epoch(0, 3)
    call(method, 0, [5])
    method.begin_epoch(1, 3)
    first = call(method, 1, [5]).per_sample
    call(method, 2, [5])  # other logits for the same sample, within the epoch
    assert torch.equal(call(method, 1, [5]).per_sample, first)


def test_of_a_sample_that_is_twice_in_a_batch_the_later_row_is_kept():
    method, index = one_stage(), torch.tensor([5, 2, 5, 5, 2])
    logits = torch.randn(5, 3)
    method.begin_epoch(0, 3)
    method(Outputs(logits), None, index % 3, index=index)
    method.begin_epoch(1, 3)
    kept = method.previous_epoch.memory.completed.value
    torch.testing.assert_close(kept[5], torch.softmax(logits[3], dim=0).half())
    torch.testing.assert_close(kept[2], torch.softmax(logits[4], dim=0).half())


def test_memory_is_half_precision_of_probabilities_at_temperature_one():
    method = one_stage(temperature=4.0)
    method.begin_epoch(0, 2)
    call(method, 0, range(SIZE))
    method.begin_epoch(1, 2)
    kept = method.previous_epoch.memory.completed.value
    assert kept.dtype == torch.float16
    torch.testing.assert_close(kept, torch.softmax(logits_of(0, torch.arange(SIZE)), dim=1).half())
    for cast in ("double", "float", "bfloat16"):
        assert getattr(method, cast)().previous_epoch.memory.completed.value.dtype == torch.float16


def test_probabilities_that_half_precision_rounds_to_zero_stay_finite():
    method, index = one_stage(), torch.tensor([0])
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    for epoch in range(2):
        method.begin_epoch(epoch, 2)
        terms = method(Outputs(logits.roll(epoch, dims=1).requires_grad_()), None, torch.tensor([2]), index=index)
        assert torch.isfinite(terms.total)


def test_evaluation_writes_nothing():
    method = one_stage()
    method.begin_epoch(0, 2)
    method.eval()
    call(method, 0, [1, 2])
    assert not method.previous_epoch.memory.written.value.any()
    method.train()
    call(method, 0, [1, 2])
    assert method.previous_epoch.memory.written.value.count_nonzero() == 2


def test_a_teacher_s_outputs_are_not_looked_at():
    method = one_stage()
    method.begin_epoch(0, 2)
    index = torch.tensor([1, 2])
    student = Outputs(logits_of(0, index))
    with_teacher = method(student, Outputs(torch.full((2, 3), torch.nan)), index % 3, index=index)
    assert torch.isfinite(with_teacher.total)


def test_beginning_the_same_epoch_again_changes_nothing():
    method = one_stage()
    method.begin_epoch(0, 3)
    call(method, 0, [1, 2])
    method.begin_epoch(0, 3)
    assert not method.previous_epoch.memory.in_completed.value.any()
    method.begin_epoch(1, 3)
    assert method.previous_epoch.memory.in_completed.value.sum() == 2
    assert not method.previous_epoch.memory.written.value.any()


def test_the_memory_is_apart_from_the_state_dict():
    method = one_stage("ipwd", num_samples=100_000)
    assert sum(value.numel() for value in method.state_dict().values()) < 100
    state = method.memory_state()
    assert set(state) == {"completed", "in_completed", "running", "in_running", "running_epoch"}
    assert state["completed"].shape == (100_000, 3)
    assert create_method("kd", class_counts=COUNTS).memory_state() == {}


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_blocks_of_rows_change_nothing(rows, monkeypatch):
    monkeypatch.setattr("distail.methods.memory_bank.BLOCK", rows)
    method = one_stage()
    method.begin_epoch(0, 2)
    call(method, 0, range(3, SIZE))
    state = method.memory_state()
    method.begin_epoch(1, 2)
    torch.testing.assert_close(method.previous_epoch.memory.completed.value, state["running"])
    torch.testing.assert_close(state["running"][3:], torch.softmax(logits_of(0, torch.arange(3, SIZE)), dim=1).half())
    assert torch.equal(method.previous_epoch.memory.in_completed.value, torch.arange(SIZE) >= 3)


def test_without_begin_epoch_a_warning_says_that_nothing_is_distilled():
    method = one_stage()
    with pytest.warns(UserWarning, match="begin_epoch"):
        terms = call(method, 0, [1, 2])
    np.testing.assert_allclose(terms.per_sample.numpy(), ce(0, [1, 2]), rtol=1e-5)
    method.begin_epoch(0, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(method, 0, [1, 2])


def test_any_method_with_a_divergence_may_teach_itself():
    for name in ("kd", "bkd", "drkd", "dive", "wsld", "dkd", "ltkd"):
        method = one_stage(name)
        for epoch in range(3):
            method.begin_epoch(epoch, 3)
            terms = call(method, epoch, [0, 3, 7])
            assert torch.isfinite(terms.total)
        assert terms["distillation"] > 0


def test_swapped_targets_of_the_epoch_before():
    method = one_stage("drkd")
    index = list(range(8))
    for epoch in range(2):
        method.begin_epoch(epoch, 2)
        terms = call(method, epoch, index)
    before = logits_of(0, torch.arange(8)).double().numpy()
    target = np.array([oracle.softmax(z) for z in oracle.swap(before, [i % 3 for i in index])])
    expected = 0.8 * oracle.kl_losses(logits_of(1, torch.arange(8)).double().numpy(), target, 1.0).mean()
    assert terms["distillation"].item() == pytest.approx(expected, rel=3e-3)


def test_a_training_that_goes_on_without_its_memory_is_warned():
    """The state_dict knows the epoch, but not what was said in those before."""
    method, resumed = one_stage(), one_stage()
    for epoch in range(2):
        method.begin_epoch(epoch, 4)
        call(method, epoch, range(SIZE))
    resumed.load_state_dict(method.state_dict())
    with pytest.warns(UserWarning, match=r"epoch 2.*load_memory_state"):
        resumed.begin_epoch(2, 4)
    again = one_stage()
    again.load_state_dict(method.state_dict())
    again.load_memory_state(method.memory_state())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.begin_epoch(2, 4)


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_second_training_with_the_same_method_begins_with_nothing(epochs):
    method, fresh = one_stage(), one_stage()
    for epoch in range(epochs):
        method.begin_epoch(epoch, epochs)
        call(method, epoch, range(SIZE))
    for each in (method, fresh):
        each.begin_epoch(0, epochs)
    assert torch.equal(call(method, 5, range(8)).per_sample, call(fresh, 5, range(8)).per_sample)
    for each in (method, fresh):
        each.begin_epoch(1, epochs)
    assert torch.equal(call(method, 6, range(SIZE)).per_sample, call(fresh, 6, range(SIZE)).per_sample)
