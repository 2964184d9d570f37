"""Multi-label losses against a float64 oracle, their limits and their gradients.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from distail.errors import MethodError
from distail.functional import (
    adjust_logits,
    asymmetric_loss,
    binary_cross_entropy,
    class_log_odds,
    distribution_balanced_loss,
    rebalancing_weights,
    sigmoid_divergence,
)
from helpers import multi_label_oracle as oracle
from helpers.made_batches import batches, made_batch, quick

gammas = st.sampled_from([0.0, 0.5, 1.0, 4.0])


def labels_of(batch):
    """A class where the teacher says yes, so that some samples have several and some none."""
    return batch.teacher > 1


def log_odds_of(batch):
    return class_log_odds(batch.counts, samples=700)


@quick
@given(batches)
def test_binary_cross_entropy(batch):
    losses_B = binary_cross_entropy(batch.student, labels_of(batch))
    expected = oracle.bce(batch.student.numpy(), labels_of(batch).numpy())
    np.testing.assert_allclose(losses_B, expected, rtol=1e-9, atol=1e-15)  # torch rounds losses of 1e-17 to 0


@quick
@given(batches, gammas, gammas, st.sampled_from([0.0, 0.05, 0.4]))
def test_asymmetric(batch, gamma_pos, gamma_neg, clip):
    losses_B = asymmetric_loss(batch.student, labels_of(batch), gamma_pos, gamma_neg, clip)
    expected = oracle.asymmetric(batch.student.numpy(), labels_of(batch).numpy(), gamma_pos, gamma_neg, clip)
    np.testing.assert_allclose(losses_B, expected, rtol=1e-7, atol=1e-12)


@quick
@given(batches, st.sampled_from([None, (0.1, 10.0, 0.2), (0.0, 1.0, 0.5)]), st.sampled_from([1.0, 2.0, 5.0]), gammas)
def test_distribution_balanced(batch, mapping, neg_scale, gamma):
    labels_BC, counts = labels_of(batch), torch.tensor(batch.counts)
    weights_BC = None if mapping is None else rebalancing_weights(labels_BC.double(), counts, *mapping)
    losses_B = distribution_balanced_loss(
        batch.student, labels_BC, log_odds_of(batch), weights_BC, neg_scale=neg_scale, gamma=gamma, bias=0.05
    )
    expected = oracle.distribution_balanced(
        batch.student.numpy(), labels_BC.numpy(), batch.counts, 700, mapping, neg_scale, 0.05, gamma, 2.0
    )
    np.testing.assert_allclose(losses_B, expected, rtol=1e-7, atol=1e-12)


@quick
@given(batches)
def test_sigmoid_divergence(batch):
    values_B = sigmoid_divergence(batch.student, batch.teacher, batch.temperature)
    expected = oracle.divergence(batch.student.numpy(), batch.teacher.numpy(), batch.temperature)
    np.testing.assert_allclose(values_B, expected, rtol=1e-8, atol=1e-12)
    assert bool((values_B >= -1e-9).all())


def test_it_is_torch_s_mean_times_the_classes():
    batch = made_batch(0)
    target_BC = labels_of(batch)
    expected = F.binary_cross_entropy_with_logits(batch.student, target_BC.double()) * batch.student.shape[1]
    torch.testing.assert_close(binary_cross_entropy(batch.student, target_BC).mean(), expected)


def test_limits_are_binary_cross_entropy():
    batch = made_batch(1)
    target_BC = labels_of(batch)
    expected_B = binary_cross_entropy(batch.student, target_BC)
    torch.testing.assert_close(asymmetric_loss(batch.student, target_BC, 0.0, 0.0, 0.0), expected_B)
    equal_C = class_log_odds([30] * 7, samples=70)
    plain = {"neg_scale": 1.0, "bias": 0.0, "gamma": 0.0, "balance": 1.0}
    torch.testing.assert_close(distribution_balanced_loss(batch.student, target_BC, equal_C, **plain), expected_B)


def test_equal_logits_do_not_diverge():
    batch = made_batch(2, scale=50.0)
    torch.testing.assert_close(sigmoid_divergence(batch.student, batch.student, 3.0), torch.zeros(5).double())


def test_saturated_logits_stay_finite_in_float32():
    wild_BC = torch.tensor([[1e4, -1e4, 90.0, -90.0]], requires_grad=True)
    for labels in ([True] * 4, [False] * 4):
        target_BC = torch.tensor([labels])
        odds_C = class_log_odds([3, 5, 1, 2], samples=9)
        losses = (
            asymmetric_loss(wild_BC, target_BC, 0.5, 0.5)
            + distribution_balanced_loss(wild_BC, target_BC, odds_C, gamma=0.5)
            + sigmoid_divergence(wild_BC, -wild_BC.detach(), 1.0)
        )
        (gradient,) = torch.autograd.grad(losses.sum(), wild_BC)
        assert bool(losses.isfinite().all())
        assert bool(gradient.isfinite().all())


def test_gradients():
    batch = made_batch(3, batch_size=3, num_classes=4, scale=1.5)
    logits_BC, target_BC, odds_C = batch.student.requires_grad_(), labels_of(batch), log_odds_of(batch)
    weights_BC = rebalancing_weights(target_BC.double(), torch.tensor(batch.counts), 0.1, 10.0, 0.2)
    for loss in (
        lambda z: binary_cross_entropy(z, target_BC),
        lambda z: asymmetric_loss(z, target_BC, 1.0, 4.0),
        lambda z: distribution_balanced_loss(z, target_BC, odds_C, weights_BC),
        lambda z: sigmoid_divergence(z, batch.teacher, 2.0),
    ):
        assert torch.autograd.gradcheck(loss, (logits_BC,))


def test_no_gradient_reaches_the_teacher():
    teacher_BC = torch.randn(2, 3, requires_grad=True)
    student_BC = torch.randn(2, 3, requires_grad=True)
    sigmoid_divergence(student_BC, teacher_BC, 2.0).sum().backward()
    assert teacher_BC.grad is None


def test_log_odds_are_what_a_network_that_sees_nothing_learns():
    """The shares as probabilities: the logits that minimize the loss of the labels alone."""
    odds_C = class_log_odds([30, 1, 99], samples=100)
    torch.testing.assert_close(odds_C.sigmoid(), torch.tensor([0.3, 0.01, 0.99], dtype=torch.float64))
    logits_BC = torch.tensor([[0.2, -3.0, 4.0]], dtype=torch.float64)
    shifted_BC = adjust_logits(logits_BC, odds_C, -1.0)
    for c, (share, z) in enumerate(zip((0.3, 0.01, 0.99), (0.2, -3.0, 4.0), strict=True)):
        assert shifted_BC[0, c].item() == pytest.approx(z - math.log(share / (1 - share)))
    torch.testing.assert_close(adjust_logits(logits_BC, odds_C, -0.0), logits_BC)


def test_a_sample_without_classes_weighs_its_negatives_most():
    weights_BC = rebalancing_weights(torch.zeros(1, 2), torch.tensor([5, 1]), 0.1, 10.0, 0.2)
    torch.testing.assert_close(weights_BC, torch.full((1, 2), 1.1))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor([0, 1]), r"\(2,\).*\(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.int64), "int64.*bool"),
        (torch.full((2, 3), 2.0), "2.*0 to 1"),
    ],
)
def test_other_labels_are_refused(target, said):
    with pytest.raises(MethodError, match=said):
        binary_cross_entropy(torch.zeros(2, 3), target)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"clip": 1.0}, "clip.*1"), ({"gamma_neg": -1}, "gamma_neg.*-1"), ({"gamma_pos": math.nan}, "nan")],
)
def test_parameters_out_of_range(options, said):
    with pytest.raises(MethodError, match=said):
        asymmetric_loss(torch.zeros(1, 2), torch.zeros(1, 2), **options)


def test_a_class_of_every_sample_has_no_odds():
    with pytest.raises(MethodError, match=r"9 of 9"):
        class_log_odds([9, 1], samples=9)
