"""The third slot: how far the student is from the repaired target. One value per sample, already times T^2.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distail.functional import (
    class_thirds,
    correlation_divergence,
    decoupled_divergence,
    grouped_divergence,
    kl_divergence,
)
from distail.functional.checks import check_number, log_probabilities
from distail.functional.divergences import order_by_group
from distail.methods.context import BatchContext, Progress, SlotOutput, SlotSetup
from distail.methods.modules import FixedDtypeBuffer
from distail.methods.multi_label import Sigmoid


class KL(nn.Module):
    """``T^2 * KL(q || p_s^T)``, teacher to student [paper: Hinton et al. 2015]."""

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__()

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        temperature = context.temperature
        divergence_B = kl_divergence(
            context.student.logits,
            log_probabilities(logits_BC, temperature),
            temperature,
            log_target=True,
            student_log_probs=context.student_log_probabilities(temperature),
        )
        return SlotOutput(divergence_B)


class GroupedKL(nn.Module):
    """``T^2 * (cross_weight * cross + within_weight * within)`` over head, medium and tail thirds [note: LTKD].

    Statistics `cross` and `within`: the batch means of both, without weight and T^2.

    Args:
        cross_weight: of the divergence between group masses, the teacher's rebalanced over the batch.
        within_weight: of the divergences within groups, summed.
    """

    posterior = None  # groups count the same, classes within them do not

    def __init__(self, setup: SlotSetup, *, cross_weight: float = 1.0, within_weight: float = 1.0) -> None:
        super().__init__()
        self.groups = class_thirds(setup.class_counts)
        self.order = FixedDtypeBuffer(order_by_group(self.groups, setup.num_classes), persistent=False)
        self.cross_weight = check_number("cross_weight", cross_weight, least=0.0)
        self.within_weight = check_number("within_weight", within_weight, least=0.0)

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        cross_B, within_B = grouped_divergence(
            context.student.logits,
            logits_BC,
            self.groups,
            context.temperature,
            context.reduce,
            order=self.order.value,
        )
        return SlotOutput(
            context.temperature**2 * (self.cross_weight * cross_B + self.within_weight * within_B),
            statistics={"cross": cross_B.mean(), "within": within_B.mean()},
        )


class DecoupledKL(nn.Module):
    """``ramp * T^2 * (target_weight * TCKD + non_target_weight * NCKD)`` [code: DKD, Zhao et al. 2022].

    ``ramp = min(1, epoch / (warmup * epochs))``. Statistics `target_class` and `non_target_class`: the batch means of
    TCKD and NCKD, without weights, ramp and T^2.

    Args:
        target_weight: of the two-way divergence, label against the rest (the paper's alpha).
        non_target_weight: of the divergence among the other classes (the paper's beta).
        warmup: the share of training over which the ramp rises; 0 is off. Default 20 of 240 epochs. A single epoch,
            which would be the one without distillation, has no ramp [ours].
    """

    def __init__(
        self,
        setup: SlotSetup,
        *,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        warmup: float = 1 / 12,
    ) -> None:
        super().__init__()
        self.target_weight = check_number("target_weight", target_weight, least=0.0)
        self.non_target_weight = check_number("non_target_weight", non_target_weight, least=0.0)
        self.warmup = check_number("warmup", warmup, least=0.0, most=1.0)
        # a tensor, since a number that changes every epoch would have torch.compile compile every epoch
        self.ramp = FixedDtypeBuffer(torch.ones((), dtype=torch.float64), persistent=False)

    def begin_epoch(self, progress: Progress) -> None:
        rising = progress.epochs != 1 and progress.fraction < self.warmup
        self.ramp.value.fill_(progress.fraction / self.warmup if rising else 1.0)

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        target_class_B, non_target_B = decoupled_divergence(
            context.student.logits, logits_BC, context.target, context.temperature
        )
        weighted_B = self.target_weight * target_class_B + self.non_target_weight * non_target_B
        return SlotOutput(
            context.temperature**2 * self.ramp(weighted_B) * weighted_B,
            statistics={"target_class": target_class_B.mean(), "non_target_class": non_target_B.mean()},
        )


class Correlation(nn.Module):
    """``T^2 * (inter_weight * (1 - r of a sample's classes) + intra_weight * mean of (1 - r of a class's samples))``.

    r is Pearson's correlation of the student's and the target's probabilities at T [paper, code: DIST, Huang et al.
    2022]. The second part is one number of the global batch, which every sample carries, so that weights of samples
    scale it as well. Statistics `inter` and `intra`: both parts, without weight and T^2.

    Args:
        inter_weight: of the correlation over classes, sample by sample (the paper's beta).
        intra_weight: of the correlation over samples, class by class (the paper's gamma).
    """

    def __init__(self, setup: SlotSetup, *, inter_weight: float = 1.0, intra_weight: float = 1.0) -> None:
        super().__init__()
        self.inter_weight = check_number("inter_weight", inter_weight, least=0.0)
        self.intra_weight = check_number("intra_weight", intra_weight, least=0.0)

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        temperature = context.temperature
        inter_B, intra = correlation_divergence(
            context.student.logits, logits_BC, temperature, total=context.global_sum
        )
        return SlotOutput(
            temperature**2 * (self.inter_weight * inter_B + self.intra_weight * intra),
            statistics={"inter": inter_B.mean(), "intra": intra},
        )


DIVERGENCES: dict[str, type[nn.Module]] = {
    "correlation": Correlation,
    "decoupled_kl": DecoupledKL,
    "grouped_kl": GroupedKL,
    "kl": KL,
    "sigmoid": Sigmoid,
}
