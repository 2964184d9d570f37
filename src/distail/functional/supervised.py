"""Supervised terms: logits and labels in, one loss per sample out.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distail.errors import MethodError
from distail.functional.checks import (
    at_least_float32,
    check_logits,
    check_number,
    check_one_a_class,
    check_target,
    is_label,
    log_probabilities,
    of_target,
)


def cross_entropy(
    logits: Tensor, target: Tensor, *, log_probs: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """``-log softmax(z)[y]``: (B, C) and (B,) to (B,), in at least float32.

    With `label_smoothing` s the target is ``1 - s`` for the label plus ``s / C`` for every class [paper: Szegedy et
    al. 2016].
    `log_probs` is ``log softmax(z)``, if already computed.

    Raises:
        MethodError: shapes do not fit, or the smoothing is not in 0 to 1.

    >>> cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.6931])
    >>> cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), label_smoothing=0.5)
    tensor([0.6269])
    """
    check_logits(logits, "logits")
    check_target(target, logits)
    check_number("label_smoothing", label_smoothing, least=0.0, most=1.0)
    log_probs_BC = log_probabilities(logits) if log_probs is None else log_probs
    losses_B = -of_target(log_probs_BC, target)
    if label_smoothing:
        losses_B = (1 - label_smoothing) * losses_B - label_smoothing * log_probs_BC.mean(dim=1)
    return losses_B


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, *, log_probs: Tensor | None = None) -> Tensor:
    """``(1 - p[y])**gamma * CE`` [paper: Lin et al. 2017]. (B, C) and (B,) to (B,).

    `log_probs` is ``log softmax(z)``, if already computed.

    >>> focal_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.1733])
    """
    losses_B = cross_entropy(logits, target, log_probs=log_probs)
    # the floor keeps the gradient of the power finite where p[y] is 1 and gamma below 1
    miss_B = (-torch.expm1(-losses_B)).clamp_min(torch.finfo(losses_B.dtype).tiny)
    return miss_B**gamma * losses_B


def weighted_by_label(
    losses_B: Tensor, weights_C: Tensor, target: Tensor, batch_mean: Callable[[Tensor], Tensor] = torch.mean
) -> Tensor:
    """Each loss times the weight of its label, divided by the batch mean of these weights, as in torch's weighted mean.

    ``batch_mean`` computes the mean over the global batch in distributed training.

    >>> weighted_by_label(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    tensor([0.5000, 1.5000])
    """
    if losses_B.shape != target.shape:
        raise MethodError(
            f"losses have shape {tuple(losses_B.shape)} and target {tuple(target.shape)}; expected one per sample, (B,)"
        )
    weights_B = weights_C.to(losses_B.dtype)[target]
    return weights_B / batch_mean(weights_B) * losses_B


def subtract_margin(logits: Tensor, target: Tensor, margins: Tensor, scale: float, classifier_scale: float) -> Tensor:
    """LDAM's logits, ``scale * (cosine - margin of the label)`` [paper: Cao et al. 2019]. (B, C) to (B, C).

    ``classifier_scale`` is the scale of the cosine classifier; the logits divided by it are the cosines.

    >>> subtract_margin(torch.tensor([[30.0, 0.0]]), torch.tensor([0]), torch.tensor([0.5, 0.5]), 30.0, 30.0)
    tensor([[15.,  0.]])
    """
    check_logits(logits, "logits")
    check_target(target, logits)
    check_one_a_class(margins, "margins", logits)
    check_number("classifier_scale", classifier_scale, above=0.0)
    logits = at_least_float32(logits)
    margins_B1 = margins.to(logits.dtype)[target][:, None]
    return scale * (logits / classifier_scale - margins_B1 * is_label(target, logits.shape[1]))


def adjust_logits(logits: Tensor, log_share: Tensor, tau: float = 1.0) -> Tensor:
    """Logits plus ``tau`` times the log class priors [paper: Menon et al. 2021; at tau 1 Ren et al. 2020].

    >>> adjust_logits(torch.tensor([[0.0, 0.0]]), torch.tensor([0.75, 0.25]).log()).softmax(1)
    tensor([[0.7500, 0.2500]])
    """
    check_logits(logits, "logits")
    check_one_a_class(log_share, "log shares", logits)
    logits = at_least_float32(logits)
    return logits + tau * log_share.to(logits.dtype)
