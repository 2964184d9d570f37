"""DKD: the divergence decoupled into the target class and the others, in log space."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from distail.errors import MethodError
from distail.functional.checks import check_logits, check_same_shape, check_target, check_temperature
from distail.functional.divergence import kl_of_log_probabilities
from distail.functional.numerics import at_least_float32, is_label


def decoupled_divergence(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Target-class and non-target-class divergence, TCKD and NCKD [paper, code: Zhao et al. 2022, DKD].

    TCKD is the divergence of the two-way distributions (label, anything else); NCKD that of the distributions over
    the other classes. ``KL = TCKD + (1 - p_t[y]) * NCKD``. Everything comes from the log-odds of the label against
    the rest, so that saturated logits stay finite [ours].

    Args:
        student_logits, teacher_logits: (B, C), C at least 2; no gradient flows into the teacher's.
        target: (B,) int64.
        temperature: above 0.

    Returns:
        Two (B,) tensors, in at least float32, without the factor T^2.

    >>> student, teacher = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    >>> tckd, nckd = decoupled_divergence(student, teacher, torch.tensor([0]), temperature=1.0)
    >>> tckd.item() + (1 - teacher.softmax(1)[0, 0].item()) * nckd.item()  # doctest: +ELLIPSIS
    0.266...
    """
    check_logits(student_logits, "student logits")
    check_same_shape(student_logits, teacher_logits, "student logits", "teacher logits")
    check_target(target, student_logits)
    check_temperature(temperature)
    if student_logits.shape[1] < 2:
        raise MethodError("logits have one class; expected at least 2: the label, and others")
    odds_s_B, others_s_BC = _label_against_others(student_logits, target, temperature)
    odds_t_B, others_t_BC = _label_against_others(teacher_logits.detach(), target, temperature)
    target_class_B = kl_of_log_probabilities(_two_way(odds_t_B), _two_way(odds_s_B))
    label_BC = is_label(target, student_logits.shape[1])
    distance_BC = (others_t_BC - others_s_BC).masked_fill(label_BC, 0.0)
    return target_class_B, (others_t_BC.exp() * distance_BC).sum(dim=1)


def _label_against_others(logits_BC: Tensor, target_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-odds of the label (B,), and log-probabilities among the other classes (B, C): minus infinity at the label."""
    scaled_BC = at_least_float32(logits_BC) / temperature
    others_BC = scaled_BC.masked_fill(is_label(target_B, logits_BC.shape[1]), -torch.inf)
    mass_B1 = others_BC.logsumexp(dim=1, keepdim=True)
    return (scaled_BC.gather(1, target_B[:, None]) - mass_B1).squeeze(1), others_BC - mass_B1


def _two_way(log_odds_B: Tensor) -> Tensor:
    return torch.stack((logsigmoid(log_odds_B), logsigmoid(-log_odds_B)), dim=1)
