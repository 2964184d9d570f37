"""Multi-label losses: C yes-or-no questions a sample, of which several may be yes. One value per sample: their sum.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from distail.errors import MethodError
from distail.functional.checks import (
    at_least_float32,
    check_logits,
    check_number,
    check_one_a_class,
    check_same_shape,
    check_temperature,
    check_tensor,
    check_whole,
    counts_tensor,
    tempered,
)


def check_labels(target: Tensor, logits_BC: Tensor) -> None:
    """Labels of several classes per sample: (B, C), bool, or numbers of 0 to 1 (checked on the CPU only)."""
    check_tensor(target, "target", "a bool tensor of shape (B, C)")
    if target.shape != logits_BC.shape or not (target.dtype == torch.bool or target.is_floating_point()):
        raise MethodError(
            f"target is {str(target.dtype).removeprefix('torch.')} of shape {tuple(target.shape)}; expected bool of "
            f"shape {tuple(logits_BC.shape)}: for every sample which of the classes it has"
        )
    if target.dtype == torch.bool or target.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if not bool(((target >= 0) & (target <= 1)).all()):
        raise MethodError(
            f"target reaches from {target.min().item():g} to {target.max().item():g}; expected 0 to 1: whether a "
            "sample has a class"
        )


def class_log_odds(class_counts: Sequence[int] | Tensor, samples: int) -> Tensor:
    """Log odds of each class in the training data, ``log(n / (N - n))`` of n positives among N samples: (C,) float64.

    Raises:
        MethodError: a class that no sample has, or that every sample has: its odds are not finite.

    >>> class_log_odds([3, 1], samples=4).exp()
    tensor([3.0000, 0.3333], dtype=torch.float64)
    """
    counts_C = counts_tensor(class_counts)
    check_whole("samples", samples, least=2)
    if bool((counts_C >= samples).any()):
        raise MethodError(
            f"class_counts reach {int(counts_C.max())} of {samples} samples; expected fewer positives of a class than "
            "samples: a class that every sample has cannot be learned"
        )
    return torch.log(counts_C) - torch.log(samples - counts_C)


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """``-sum_c [y_c log sigmoid(z_c) + (1 - y_c) log sigmoid(-z_c)]``: (B, C) twice to (B,), in at least float32.

    torch's mean over classes is this divided by C.

    Raises:
        MethodError: shapes or dtypes that do not fit.

    >>> binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[True, False]]))
    tensor([1.3863])
    """
    check_logits(logits, "logits")
    check_labels(target, logits)
    logits_BC = at_least_float32(logits)
    return binary_cross_entropy_with_logits(logits_BC, target.to(logits_BC.dtype), reduction="none").sum(dim=1)


def asymmetric_loss(
    logits: Tensor, target: Tensor, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05
) -> Tensor:
    """ASL: easy negatives count less than easy positives, and those below `clip` nothing at all.

    ``-sum_c [y_c (1 - p_c)**gamma_pos log p_c + (1 - y_c) m_c**gamma_neg log(1 - m_c)]`` with p the sigmoid and
    ``m = max(p - clip, 0)`` [paper: Ridnik et al., ICCV 2021, arXiv 2009.14119; defaults of its COCO
    training]. The gradient reaches the factors too [paper]; the authors' training script holds them constant [code].
    Logarithms are exact, where the code floors probabilities at 1e-8 [ours]. Gammas and clip 0: `binary_cross_entropy`.

    Args:
        logits: (B, C).
        target: (B, C) bool, or numbers of 0 to 1.
        gamma_pos, gamma_neg: focusing of the classes that a sample has, and of those that it has not; at least 0.
        clip: the margin of the paper, at least 0 and below 1.

    Returns:
        (B,), in at least float32.

    Raises:
        MethodError: shapes that do not fit, or parameters out of range.

    >>> asymmetric_loss(torch.zeros(1, 2), torch.tensor([[True, False]]))
    tensor([0.7177])
    """
    check_logits(logits, "logits")
    check_labels(target, logits)
    check_number("gamma_pos", gamma_pos, least=0.0)
    check_number("gamma_neg", gamma_neg, least=0.0)
    check_number("clip", clip, least=0.0, below=1.0)
    logits_BC = at_least_float32(logits)
    has_BC, tiny = target.to(logits_BC.dtype), torch.finfo(logits_BC.dtype).tiny
    not_BC = torch.sigmoid(-logits_BC)
    log_not_BC = (not_BC + clip).clamp_max(1.0).log() if clip else logsigmoid(-logits_BC)
    # the floors keep the gradient of a power finite where its base is 0 and gamma below 1
    shifted_BC = (torch.sigmoid(logits_BC) - clip).clamp_min(tiny)
    positive_BC = not_BC.clamp_min(tiny) ** gamma_pos * logsigmoid(logits_BC)
    return -(has_BC * positive_BC + (1 - has_BC) * shifted_BC**gamma_neg * log_not_BC).sum(dim=1)


def rebalancing_weights(target: Tensor, class_counts: Tensor, alpha: float, beta: float, mu: float) -> Tensor:
    """Weights of the distribution-balanced loss, ``alpha + sigmoid(beta * (r - mu))``: (B, C) and (C,) to (B, C).

    ``r_bc = (1 / n_c) / sum_k y_bk / n_k`` is how often a sample was to be drawn for class c over how often resampling
    draws it for all that it has [paper, code: Wu et al. 2020]. Of a sample without a class r is infinite
    and the weight ``alpha + 1`` [code].

    >>> rebalancing_weights(torch.tensor([[True, True]]), torch.tensor([30, 10]), alpha=0.0, beta=4.0, mu=0.25)
    tensor([[0.5000, 0.8808]])
    """
    dtype = torch.promote_types(target.dtype, torch.float32)
    wanted_C = 1 / class_counts.to(target.device, dtype)
    drawn_B1 = (target.to(dtype) * wanted_C).sum(dim=1, keepdim=True)
    weights_BC = alpha + torch.sigmoid(beta * (wanted_C / drawn_B1.clamp_min(torch.finfo(dtype).tiny) - mu))
    return torch.where(drawn_B1 > 0, weights_BC, alpha + 1.0)


def distribution_balanced_loss(
    logits: Tensor,
    target: Tensor,
    log_odds: Tensor,
    weights: Tensor | None = None,
    *,
    neg_scale: float = 2.0,
    bias: float = 0.05,
    gamma: float = 2.0,
    balance: float = 2.0,
) -> Tensor:
    """Rebalanced weights, negative-tolerant regularization and focusing, in that order [code: Wu et al., ECCV 2020].

    With ``v = z + bias / neg_scale * log_odds``, ``u = v`` where a sample has the class and ``neg_scale * v`` where it
    has not, and ``l = BCE(u, y)``: ``balance * sum_c w_c (1 - exp(-l_c))**gamma l_c``, the losses of negatives over
    `neg_scale` [paper, code: arXiv 2007.09654]. The division of the bias by `neg_scale`, focusing and
    `balance` are the code's; defaults are those of its COCO-LT (of VOC-LT neg_scale 5). Summed over classes, where the
    code takes the mean [ours]. With no weights, neg_scale 1, bias 0, gamma 0, balance 1: `binary_cross_entropy`.

    Args:
        logits: (B, C).
        target: (B, C) bool, or 0 and 1.
        log_odds: (C,) as `class_log_odds`.
        weights: (B, C) as `rebalancing_weights`; None: none.
        neg_scale: the paper's lambda, above 0.
        bias: the paper's kappa, at least 0.
        gamma: focusing, at least 0.
        balance: a factor of the whole, above 0.

    Returns:
        (B,), in at least float32.

    Raises:
        MethodError: shapes that do not fit, or parameters out of range.

    >>> odds = class_log_odds([3, 1], samples=4)
    >>> distribution_balanced_loss(torch.zeros(1, 2), torch.tensor([[True, False]]), odds, bias=0.0)
    tensor([0.5199])
    """
    check_logits(logits, "logits")
    check_labels(target, logits)
    check_one_a_class(log_odds, "log odds", logits)
    check_number("neg_scale", neg_scale, above=0.0)
    check_number("bias", bias, least=0.0)
    check_number("gamma", gamma, least=0.0)
    check_number("balance", balance, above=0.0)
    logits_BC = at_least_float32(logits)
    has_BC = target.to(logits_BC.dtype)
    scale_BC = has_BC + (1 - has_BC) * neg_scale
    tolerant_BC = scale_BC * (logits_BC + bias / neg_scale * log_odds.to(logits_BC.dtype))
    losses_BC = binary_cross_entropy_with_logits(tolerant_BC, has_BC, reduction="none")
    miss_BC = (-torch.expm1(-losses_BC)).clamp_min(torch.finfo(losses_BC.dtype).tiny)
    if weights is not None:
        check_same_shape(weights, logits, "weights", "logits")
        losses_BC = weights.to(losses_BC.dtype) * losses_BC
    return balance * (miss_BC**gamma * losses_BC / scale_BC).sum(dim=1)


def sigmoid_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 * sum_c KL(Bernoulli(sigmoid(z_t / T)) || Bernoulli(sigmoid(z_s / T)))``: (B, C) twice to (B,).

    The multi-label logits distillation of Yang et al. (ICCV 2023, arXiv 2308.06453) [paper, code: MLD, at T 1];
    temperature and T^2 as Hinton's [ours], logarithms exact where the code clamps probabilities at 1e-8 [ours].

    Args:
        student_logits, teacher_logits: (B, C); no gradient flows into the teacher's.
        temperature: above 0.

    Returns:
        (B,), in at least float32.

    Raises:
        MethodError: shapes that differ, or a bad temperature.

    >>> sigmoid_divergence(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]))
    tensor([0.3278])
    """
    check_logits(student_logits, "student logits")
    check_same_shape(student_logits, teacher_logits, "student logits", "teacher logits")
    check_temperature(temperature)
    s_BC, t_BC = tempered(student_logits, temperature), tempered(teacher_logits.detach(), temperature)
    yes_BC = logsigmoid(t_BC).exp() * (logsigmoid(t_BC) - logsigmoid(s_BC))
    no_BC = logsigmoid(-t_BC).exp() * (logsigmoid(-t_BC) - logsigmoid(-s_BC))
    return temperature**2 * (yes_BC + no_BC).sum(dim=1)
