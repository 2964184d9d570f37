from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from distail.errors import MethodError
from distail.functional import (
    adjust_logits,
    class_log_share,
    cross_entropy,
    effective_number_weights,
    focal_loss,
    label_margins,
    subtract_margin,
    weighted_by_label,
)
from helpers import numpy_oracle as oracle
from helpers.made_batches import batches, made_batch, quick


@quick
@given(batches)
def test_cross_entropy(batch):
    losses = cross_entropy(batch.student, batch.target)
    np.testing.assert_allclose(
        losses.numpy(), oracle.cross_entropies(batch.student.numpy(), batch.labels), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(losses, F.cross_entropy(batch.student, batch.target, reduction="none"))


@quick
@given(batches, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_label_smoothing(batch, smoothing):
    losses = cross_entropy(batch.student, batch.target, label_smoothing=smoothing)
    expected = oracle.smoothed_cross_entropies(batch.student.numpy(), batch.labels, smoothing)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, float("nan")])
def test_label_smoothing_is_a_share(smoothing):
    batch = made_batch(0)
    with pytest.raises(MethodError, match=r"label_smoothing.*(-0\.1|1\.5|nan)"):
        cross_entropy(batch.student, batch.target, label_smoothing=smoothing)


@quick
@given(batches, st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_focal(batch, gamma):
    losses = focal_loss(batch.student, batch.target, gamma)
    expected = oracle.focal(batch.student.numpy(), batch.labels, gamma)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-6, atol=1e-10)


def test_focal_at_gamma_zero_is_cross_entropy():
    batch = made_batch(0)
    torch.testing.assert_close(focal_loss(batch.student, batch.target, 0.0), cross_entropy(batch.student, batch.target))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_is_finite_where_the_label_is_certain_or_hopeless(gamma):
    logits = torch.tensor([[1e4, 0.0], [-1e4, 0.0]], requires_grad=True)
    losses = focal_loss(logits, torch.tensor([0, 0]), gamma)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 1e4])
    assert torch.isfinite(logits.grad).all()


@quick
@given(batches, st.sampled_from([0.0, 0.99, 0.9999]))
def test_class_balanced_is_torch_s_weighted_mean(batch, beta):
    weights = effective_number_weights(batch.counts, beta)
    losses = weighted_by_label(cross_entropy(batch.student, batch.target), weights, batch.target)
    expected = oracle.class_balanced(batch.student.numpy(), batch.labels, batch.counts, beta)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(losses.mean(), F.cross_entropy(batch.student, batch.target, weight=weights))


@quick
@given(batches, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1.0, 30.0]), st.sampled_from([1.0, 30.0]))
def test_ldam(batch, largest, scale, own_scale):
    logits = subtract_margin(batch.student, batch.target, label_margins(batch.counts, largest), scale, own_scale)
    losses = cross_entropy(logits, batch.target)
    expected = oracle.ldam(batch.student.numpy(), batch.labels, batch.counts, largest, scale, own_scale)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_a_margin_changes_the_label_s_logit_only():
    batch = made_batch(1)
    changed = subtract_margin(batch.student, batch.target, torch.full((7,), 0.25), 1.0, 1.0) - batch.student
    expected = torch.zeros_like(changed).scatter(1, batch.target[:, None], -0.25)
    torch.testing.assert_close(changed, expected)


@quick
@given(batches, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_logit_adjusted(batch, tau):
    losses = cross_entropy(adjust_logits(batch.student, class_log_share(batch.counts), tau), batch.target)
    expected = oracle.logit_adjusted(batch.student.numpy(), batch.labels, batch.counts, tau)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-8, atol=1e-11)


def test_balanced_softmax_is_the_paper_s_ratio():
    """-log(n_y e^z_y / sum_c n_c e^z_c), written out (Ren et al. 2020, eq. 4)."""
    batch = made_batch(2)
    counts, z = np.array(batch.counts), np.exp(batch.student.numpy())
    expected = [-np.log(counts[y] * row[y] / (counts * row).sum()) for row, y in zip(z, batch.labels, strict=True)]
    losses = cross_entropy(adjust_logits(batch.student, class_log_share(batch.counts)), batch.target)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        focal_loss,
        lambda z, y: weighted_by_label(cross_entropy(z, y), torch.arange(1.0, 6.0), y),
        lambda z, y: cross_entropy(subtract_margin(z, y, torch.arange(5) / 10, 30.0, 30.0), y),
        lambda z, y: cross_entropy(adjust_logits(z, class_log_share([5, 4, 3, 2, 1])), y),
    ],
)
def test_gradcheck_and_half_precision(loss):
    batch = made_batch(3, batch_size=4, num_classes=5)
    assert torch.autograd.gradcheck(lambda z: loss(z, batch.target), batch.student.requires_grad_())
    for dtype in (torch.float16, torch.bfloat16):
        narrow = batch.student.detach().to(dtype)
        assert loss(narrow, batch.target).dtype == torch.float32
        torch.testing.assert_close(loss(narrow, batch.target), loss(narrow.float(), batch.target))


def test_labels_that_do_not_fit_are_refused():
    for loss in (cross_entropy, focal_loss):
        with pytest.raises(MethodError, match="label 3"):
            loss(torch.zeros(2, 3), torch.tensor([0, 3]))
        with pytest.raises(MethodError, match=r"logits.*float32"):
            loss(torch.zeros(3), torch.tensor([0]))
