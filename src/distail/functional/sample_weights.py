"""A weight for each sample's distillation term. Weights are constants: no gradient flows through them.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distail.functional.checks import (
    FLOOR,
    at_least_float32,
    check_choice,
    check_logits,
    check_number,
    check_same_shape,
    check_target,
)
from distail.functional.supervised import cross_entropy

RATIOS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "kd_over_cls": lambda kd_B, cls_B: (kd_B, cls_B),
    "cls_over_kd": lambda kd_B, cls_B: (cls_B, kd_B),
}


def standardize(logits: Tensor, *, correction: int = 0) -> Tensor:
    """Zero mean and unit standard deviation over classes, per sample; constant logits become zeros. (B, C) to (B, C).

    The standard deviation is that of the population (`correction` 0) or of the sample (1: logit standardization, Sun
    et al. 2024).

    >>> standardize(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    logits_BC = at_least_float32(logits)
    deviation_B1, mean_B1 = torch.std_mean(logits_BC, dim=1, correction=correction, keepdim=True)
    return (logits_BC - mean_B1) / deviation_B1.clamp_min(FLOOR)


def inverse_propensity(
    kd_logits: Tensor,
    cls_logits: Tensor,
    target: Tensor,
    ratio: str = "kd_over_cls",
    max_weight: float | None = 10.0,
    normalize: bool = True,
    *,
    standardize_logits: bool = True,
) -> Tensor:
    """IPWD's sample weights: one over the estimated probability that a sample lies in the machine domain.

    H is the cross-entropy of a head with the label, the head's logits standardized per sample [note: IPWD, arXiv
    2210.12787]. ``w = 1 + H_kd / H_cls`` upweights samples that the distilled head explains worse than the label-only
    head, which is the paper's stated purpose [ours]; ``cls_over_kd`` is the inverse ratio, as in a summary of the paper
    [note]. The denominator is floored at 1e-6, weights are clipped at `max_weight`, then divided by their
    batch mean [ours].

    Args:
        kd_logits, cls_logits: (B, C), of the distilled head and of the head trained with labels only.
        target: (B,) int64.
        ratio: "kd_over_cls" or "cls_over_kd".
        max_weight: maximum weight, above 0; None: no clipping.
        normalize: divide by the batch mean, after clipping.
        standardize_logits: False uses the unstandardized logits.

    Returns:
        (B,), in at least float32, without gradient.

    Raises:
        MethodError: shapes that differ, an unknown ratio, a clip that is not positive.

    >>> kd, cls = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    >>> inverse_propensity(kd, cls, torch.tensor([0, 0]), max_weight=None, normalize=False)
    tensor([ 2.0000, 17.7570])
    """
    check_logits(kd_logits, "KD logits")
    check_same_shape(kd_logits, cls_logits, "KD logits", "CLS logits")
    check_target(target, kd_logits)
    check_ratio(ratio)
    kd_B, cls_B = (
        cross_entropy(standardize(logits) if standardize_logits else logits, target)
        for logits in (kd_logits.detach(), cls_logits.detach())
    )
    above_B, below_B = RATIOS[ratio](kd_B, cls_B)
    weights_B = 1.0 + above_B / below_B.clamp_min(FLOOR)
    return clip_and_normalize(weights_B, max_weight, torch.mean if normalize else None)


def clip_and_normalize(
    weights_B: Tensor, max_weight: float | None, batch_mean: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Clip, then divide by the batch mean; None switches either off.

    >>> clip_and_normalize(torch.tensor([1.0, 3.0, 50.0]), 5.0, torch.mean)
    tensor([0.3333, 1.0000, 1.6667])
    """
    check_max_weight(max_weight)
    clipped_B = weights_B if max_weight is None else weights_B.clamp_max(max_weight)
    return clipped_B if batch_mean is None else clipped_B / batch_mean(clipped_B)


def loss_ratio(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, student_log_probs: Tensor | None = None
) -> Tensor:
    """WSLD's weights, ``1 - exp(-CE(z_s, y) / CE(z_t, y))``, without gradient [paper: Zhou et al. 2021]. (B,).

    The denominator is floored at 1e-6 [ours]. `student_log_probs` is ``log softmax(z_s)``, if already computed.

    >>> same = torch.tensor([[1.0, 0.0]])
    >>> loss_ratio(same, same, torch.tensor([0]))
    tensor([0.6321])
    """
    check_same_shape(student_logits, teacher_logits, "student logits", "teacher logits")
    student_B = cross_entropy(student_logits, target, log_probs=student_log_probs).detach()
    teacher_B = cross_entropy(teacher_logits, target).detach()
    return -torch.expm1(-student_B / teacher_B.clamp_min(FLOOR))


def check_ratio(ratio: str) -> str:
    return check_choice("ratio", ratio, RATIOS)


def check_max_weight(max_weight: float | None) -> float | None:
    return None if max_weight is None else check_number("max_weight", max_weight, above=0.0)
