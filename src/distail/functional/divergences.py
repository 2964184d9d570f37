"""Divergences, teacher to student, one value per sample: forward KL, summed over classes, and DIST's correlations.

Shapes: B batch, C classes, G groups of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from distail.errors import MethodError
from distail.functional.checks import (
    at_least_float32,
    check_logits,
    check_same_shape,
    check_target,
    check_temperature,
    counts_of,
    is_label,
    log_probabilities,
    tempered,
)


def kl_divergence(
    student_logits: Tensor,
    target_probs: Tensor,
    temperature: float,
    *,
    log_target: bool = False,
    student_log_probs: Tensor | None = None,
) -> Tensor:
    """``T^2 * KL(q || softmax(z_s / T))``, one value per sample [paper: Hinton et al. 2015].

    Args:
        student_logits: (B, C).
        target_probs: (B, C), rows that sum to 1; zeros are allowed. No gradient flows into them.
        temperature: above 0.
        log_target: `target_probs` are finite log-probabilities, as for torch's ``kl_div``.
        student_log_probs: ``log softmax(z_s / T)``, where it is known already.

    Returns:
        (B,), in at least float32. The batch mean of it is torch's ``batchmean``.

    Raises:
        MethodError: shapes that differ, probabilities that are negative or not finite (checked on the CPU), or a bad
            temperature.

    >>> kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]), temperature=1.0)
    tensor([0.6931])
    """
    check_logits(student_logits, "student logits")
    check_same_shape(student_logits, target_probs, "student logits", "target probabilities")
    check_temperature(temperature)
    log_p_BC = log_probabilities(student_logits, temperature) if student_log_probs is None else student_log_probs
    target_BC = at_least_float32(target_probs.detach())
    if log_target:
        return temperature**2 * kl_of_log_probabilities(target_BC, log_p_BC)
    if not torch.compiler.is_compiling():
        _check_probabilities(target_BC)
        if target_BC.is_inference():  # which could not be saved for the backward pass
            target_BC = target_BC.clone()
    return temperature**2 * (torch.xlogy(target_BC, target_BC) - target_BC * log_p_BC).sum(dim=1)


def kl_of_log_probabilities(log_q_BC: Tensor, log_p_BC: Tensor) -> Tensor:
    """``KL(q || p)`` of two finite log-distributions: (B, C) twice to (B,). No factor T^2.

    >>> kl_of_log_probabilities(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    tensor([0.1438])
    """
    return (log_q_BC.exp() * (log_q_BC - log_p_BC)).sum(dim=1)


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


def grouped_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    groups: Sequence[Sequence[int]],
    temperature: float,
    reduce: Callable[[Tensor], Tensor] | None = None,
    *,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """LTKD's two terms: across class groups, with the teacher's group masses rebalanced, and within them.

    ``KL(p_t || p_s) = KL(P_t || P_s) + sum_g P_t[g] * KL(p_t|g || p_s|g)``, P the sums over a group. LTKD (Kim, CVPR
    2026, arXiv 2506.18496) multiplies ``P_t[g]`` by ``mean_g(S) / S_g``, S_g the batch total of group g, renormalizes
    per sample, and gives every within-group term the weight 1 in place of ``P_t[g]`` [note]. A total below 2e-308, the
    smallest number of float64, counts as that [ours].

    Args:
        student_logits, teacher_logits: (B, C); no gradient flows into the teacher's.
        groups: class indices, every class in one group; an empty group is left out.
        temperature: above 0.
        reduce: sums the group totals over the global batch where training is distributed.
        order: the classes of all groups, one group after the other, (C,) int64 beside the logits, where they are known
            already; the groups are then taken as checked.

    Returns:
        cross (B,) and within (B,), the latter summed over groups; without the factor T^2.

    >>> teacher = torch.tensor([[4.0, 3.0, 0.0, 0.0]])
    >>> cross, within = grouped_divergence(torch.zeros(1, 4), teacher, [[0, 1], [2, 3]], temperature=1.0)
    >>> cross.abs() < 1e-6, within  # one sample: its group totals are its masses, so that rebalancing makes them equal
    (tensor([True]), tensor([0.1109]))
    """
    check_logits(student_logits, "student logits")
    check_same_shape(student_logits, teacher_logits, "student logits", "teacher logits")
    check_temperature(temperature)
    order_C = order_by_group(groups, student_logits.shape[1]).to(student_logits.device) if order is None else order
    sizes = [len(group) for group in groups if group]
    masses_t_BG, parts_t = _by_group(teacher_logits.detach(), order_C, sizes, temperature)
    masses_s_BG, parts_s = _by_group(student_logits, order_C, sizes, temperature)
    within = [kl_of_log_probabilities(log_q, log_p) for log_q, log_p in zip(parts_t, parts_s, strict=True)]
    cross_B = kl_of_log_probabilities(_rebalance(masses_t_BG, reduce), masses_s_BG)
    return cross_B, torch.stack(within).sum(dim=0)


def correlation_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    total: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """DIST's two terms: one less Pearson's correlation of both sides' probabilities, over classes and over the batch.

    ``inter = 1 - r(p_s[b], p_t[b])`` of every sample b, ``intra = mean_c (1 - r(p_s[:, c], p_t[:, c]))`` of the batch,
    p the softmax at T [paper, code: Huang et al., NeurIPS 2022, arXiv 2205.10536]. Norms are floored at 1e-8 [code]: a
    class that is constant over the batch, as all are in a batch of one, has the correlation 0 and no gradient.

    Args:
        student_logits, teacher_logits: (B, C); no gradient flows into the teacher's.
        temperature: above 0.
        total: sums a tensor over the processes that share the batch, with its gradient, where training is distributed.

    Returns:
        inter (B,) and intra, a scalar; without the factor T^2.

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> inter, intra = correlation_divergence(-logits, logits, temperature=1.0)  # answers the other way round
    >>> inter, intra
    (tensor([2., 2., 1.]), tensor(2.))
    """
    check_logits(student_logits, "student logits")
    check_same_shape(student_logits, teacher_logits, "student logits", "teacher logits")
    check_temperature(temperature)
    p_s_BC = log_probabilities(student_logits, temperature).exp()
    p_t_BC = log_probabilities(teacher_logits.detach(), temperature).exp()
    pair_2BC = torch.stack((p_s_BC, p_t_BC))

    def summed(values: Tensor) -> Tensor:
        return values.sum(dim=-2) if total is None else total(values.sum(dim=-2))

    inter_B = 1.0 - _correlation(pair_2BC - pair_2BC.mean(dim=2, keepdim=True), lambda values: values.sum(dim=-1))
    ones_B1 = pair_2BC.new_ones(len(p_s_BC), 1)
    centered_2BC = pair_2BC - (summed(pair_2BC) / summed(ones_B1))[:, None, :]
    return inter_B, (1.0 - _correlation(centered_2BC, summed)).mean()


def _correlation(centered_2BC: Tensor, summed: Callable[[Tensor], Tensor]) -> Tensor:
    """Pearson's correlation of two centered tensors, by what sums their products."""
    s_BC, t_BC = centered_2BC.unbind()
    products, s_squares, t_squares = summed(torch.stack((s_BC * t_BC, s_BC**2, t_BC**2))).unbind()
    # the root of a sum that is 0 would have no gradient
    return products / (s_squares.clamp_min(1e-16).sqrt() * t_squares.clamp_min(1e-16).sqrt())


def class_thirds(class_counts: Sequence[int] | Tensor) -> tuple[tuple[int, ...], ...]:
    """Head, medium and tail: classes by falling count, ties by index, cut at ``round(C / 3)`` and ``round(2 * C / 3)``.

    >>> class_thirds([5, 50, 5, 500])
    ((3,), (1, 0), (2,))
    """
    return split_into_thirds(counts_of(class_counts))


def split_into_thirds(counts: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """`class_thirds` of checked counts, of one class as well."""
    ranked = sorted(range(len(counts)), key=lambda index: (-counts[index], index))
    first, second = round(len(counts) / 3), round(2 * len(counts) / 3)
    return tuple(ranked[:first]), tuple(ranked[first:second]), tuple(ranked[second:])


def order_by_group(groups: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """The classes of all groups, one group after the other: (C,) int64.

    Raises:
        MethodError: a class is in no group, or in several.

    >>> order_by_group([[2], [], [0, 1]], num_classes=3)
    tensor([2, 0, 1])
    """
    order = [index for group in groups for index in group]
    if sorted(order) != list(range(num_classes)):
        raise MethodError(
            f"groups hold {len(order)} class indices; expected each of 0 to {num_classes - 1} exactly once"
        )
    return torch.tensor(order)


def _check_probabilities(q_BC: Tensor) -> None:
    if q_BC.device.type == "cpu" and not bool(((q_BC >= 0) & q_BC.isfinite()).all()):
        raise MethodError(
            f"target probabilities reach from {q_BC.min().item():g} to {q_BC.max().item():g}; expected "
            "probabilities, not logits: their softmax at this temperature"
        )


def _label_against_others(logits_BC: Tensor, target_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-odds of the label (B,), and log-probabilities among the other classes (B, C): minus infinity at the label."""
    scaled_BC = tempered(logits_BC, temperature)
    others_BC = scaled_BC.masked_fill(is_label(target_B, logits_BC.shape[1]), -torch.inf)
    mass_B1 = others_BC.logsumexp(dim=1, keepdim=True)
    return (scaled_BC.gather(1, target_B[:, None]) - mass_B1).squeeze(1), others_BC - mass_B1


def _two_way(log_odds_B: Tensor) -> Tensor:
    return torch.stack((logsigmoid(log_odds_B), logsigmoid(-log_odds_B)), dim=1)


def _by_group(
    logits_BC: Tensor, order_C: Tensor, sizes: Sequence[int], temperature: float
) -> tuple[Tensor, list[Tensor]]:
    """Log group masses (B, G), and the log-probabilities within each group."""
    scaled_BC = tempered(logits_BC, temperature).index_select(1, order_C)
    parts = torch.split(scaled_BC, list(sizes), dim=1)
    sums_BG = torch.stack([part.logsumexp(dim=1) for part in parts], dim=1)
    return torch.log_softmax(sums_BG, dim=1), [torch.log_softmax(part, dim=1) for part in parts]


def _rebalance(log_masses_BG: Tensor, reduce: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Log group masses over their batch totals, renormalized per sample: every group weighs the same in the batch."""
    # float64 reaches masses of 1e-308: a saturated teacher has them in whole batches. Apple's accelerator has none.
    wide_BG = log_masses_BG if log_masses_BG.device.type == "mps" else log_masses_BG.double()
    totals_G = wide_BG.exp().sum(dim=0)
    totals_G = totals_G if reduce is None else reduce(totals_G)
    # the mean over groups is the same for all of them: the softmax takes it out again
    balanced_BG = wide_BG - totals_G.clamp_min(torch.finfo(totals_G.dtype).tiny).log()
    return torch.log_softmax(balanced_BG, dim=1).to(log_masses_BG.dtype)
