"""What a caller knows already may be given, so that it is not computed twice: the values stay the same."""

from __future__ import annotations

import torch

from distail.functional import cross_entropy, focal_loss, inverse_propensity, kl_divergence, loss_ratio
from helpers.made_batches import made_batch


def test_log_probabilities_that_are_known_change_nothing():
    batch = made_batch(3)
    student, teacher, target = batch.student, batch.teacher, batch.target
    known = student.log_softmax(dim=1)
    for function, given, keyword in [
        (cross_entropy, (student, target), "log_probs"),
        (focal_loss, (student, target), "log_probs"),
        (loss_ratio, (student, teacher, target), "student_log_probs"),
        (kl_divergence, (student, teacher.softmax(dim=1), 1.0), "student_log_probs"),
    ]:
        assert torch.equal(function(*given, **{keyword: known}), function(*given))
        assert not torch.equal(function(*given, **{keyword: known.roll(1, dims=0)}), function(*given))


def test_a_target_in_logarithms_is_the_same_target():
    batch = made_batch(4)
    log_q = (batch.teacher / 3.0).log_softmax(dim=1)
    found = kl_divergence(batch.student, log_q, 3.0, log_target=True)
    torch.testing.assert_close(found, kl_divergence(batch.student, log_q.exp(), 3.0))


def test_no_gradient_flows_into_a_target_in_logarithms():
    batch = made_batch(4)
    teacher = batch.teacher.requires_grad_()
    kl_divergence(batch.student.requires_grad_(), teacher.log_softmax(dim=1), 1.0, log_target=True).sum().backward()
    assert teacher.grad is None


def test_logits_as_they_are_give_other_weights_than_standardized_ones():
    batch = made_batch(5)
    given = (batch.student, batch.teacher, batch.target, "kd_over_cls", None, False)
    expected = 1 + cross_entropy(batch.student, batch.target) / cross_entropy(batch.teacher, batch.target)
    torch.testing.assert_close(inverse_propensity(*given, standardize_logits=False), expected)
    assert not torch.allclose(inverse_propensity(*given), expected)
