"""Class groups, and the divergence split into across and within them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distail.errors import MethodError
from distail.functional.checks import check_logits, check_same_shape, check_temperature, counts_of
from distail.functional.divergence import kl_of_log_probabilities
from distail.functional.numerics import at_least_float32


def class_thirds(class_counts: Sequence[int] | Tensor) -> tuple[tuple[int, ...], ...]:
    """Head, medium and tail: classes by falling count, ties by index, cut at ``round(C / 3)`` and ``round(2 * C / 3)``.

    >>> class_thirds([5, 50, 5, 500])
    ((3,), (1, 0), (2,))
    """
    counts = counts_of(class_counts)
    ranked = sorted(range(len(counts)), key=lambda index: (-counts[index], index))
    first, second = round(len(counts) / 3), round(2 * len(counts) / 3)
    return tuple(ranked[:first]), tuple(ranked[first:second]), tuple(ranked[second:])


def grouped_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    groups: Sequence[Sequence[int]],
    temperature: float,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """LTKD's two terms: across class groups, with the teacher's group masses rebalanced, and within them.

    ``KL(p_t || p_s) = KL(P_t || P_s) + sum_g P_t[g] * KL(p_t|g || p_s|g)``, P the sums over a group. LTKD (Kim, CVPR
    2026, arXiv 2506.18496) multiplies ``P_t[g]`` by ``mean_g(S) / S_g``, S_g the batch total of group g, renormalises
    per sample, and gives every within-group term the weight 1 in place of ``P_t[g]`` [note]. A total below 2e-308, the
    smallest number of float64, counts as that [ours].

    Args:
        student_logits, teacher_logits: (B, C); no gradient flows into the teacher's.
        groups: class indices, every class in one group; an empty group is left out.
        temperature: above 0.
        reduce: sums the group totals over the global batch where training is distributed.

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
    order, sizes = ordered_by_group(groups, student_logits.shape[1])
    order_C = torch.tensor(order, device=student_logits.device)
    masses_t_BG, masses_s_BG, within_B = split_by_group(student_logits, teacher_logits, order_C, sizes, temperature)
    return kl_of_log_probabilities(rebalance(masses_t_BG, reduce), masses_s_BG), within_B


def ordered_by_group(groups: Sequence[Sequence[int]], num_classes: int) -> tuple[list[int], list[int]]:
    """Classes with those of a group side by side, and the sizes of the groups that are not empty."""
    order = [index for group in groups for index in group]
    if sorted(order) != list(range(num_classes)):
        raise MethodError(
            f"groups hold {len(order)} class indices; expected each of 0 to {num_classes - 1} exactly once"
        )
    return order, [len(group) for group in groups if group]


def split_by_group(
    student_logits: Tensor, teacher_logits: Tensor, order_C: Tensor, sizes: Sequence[int], temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log group masses of teacher and student, (B, G) each, and the summed divergence within groups, (B,)."""
    masses_t_BG, parts_t = _by_group(teacher_logits.detach(), order_C, sizes, temperature)
    masses_s_BG, parts_s = _by_group(student_logits, order_C, sizes, temperature)
    within = [kl_of_log_probabilities(log_q, log_p) for log_q, log_p in zip(parts_t, parts_s, strict=True)]
    return masses_t_BG, masses_s_BG, torch.stack(within).sum(dim=0)


def rebalance(log_masses_BG: Tensor, reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Log group masses over their batch totals, renormalised per sample: every group weighs the same in the batch.

    >>> rebalance(torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log()).exp()
    tensor([[0.6923, 0.3077],
            [0.3684, 0.6316]])
    """
    # float64 reaches masses of 1e-308: a saturated teacher has them in whole batches. Apple's accelerator has none.
    wide_BG = log_masses_BG if log_masses_BG.device.type == "mps" else log_masses_BG.double()
    totals_G = wide_BG.exp().sum(dim=0)
    totals_G = totals_G if reduce is None else reduce(totals_G)
    # the mean over groups is the same for all of them: the softmax takes it out again
    balanced_BG = wide_BG - totals_G.clamp_min(torch.finfo(totals_G.dtype).tiny).log()
    return torch.log_softmax(balanced_BG, dim=1).to(log_masses_BG.dtype)


def _by_group(
    logits_BC: Tensor, order_C: Tensor, sizes: Sequence[int], temperature: float
) -> tuple[Tensor, list[Tensor]]:
    scaled_BC = (at_least_float32(logits_BC) / temperature).index_select(1, order_C)
    parts = torch.split(scaled_BC, list(sizes), dim=1)
    sums_BG = torch.stack([part.logsumexp(dim=1) for part in parts], dim=1)
    return torch.log_softmax(sums_BG, dim=1), [torch.log_softmax(part, dim=1) for part in parts]
