"""The fourth slot: a weight for each sample's distillation term. No gradient flows through a weight.

Shapes: B batch, C classes, D feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distail.functional import cross_entropy, inverse_propensity, loss_ratio
from distail.functional.checks import check_number, check_switch
from distail.functional.sample_weights import check_max_weight, check_ratio, clip_and_normalize
from distail.methods.context import BatchContext, Progress, Requirements, SlotOutput, SlotSetup
from distail.methods.modules import project


class InversePropensity(nn.Module):
    """``w = 1 + H_kd / H_cls`` [note: IPWD; which way round: ours]: samples that the teacher's domain under-represents
    weigh more.

    Brings a second classification head on the student's features, trained with labels only: auxiliary term
    ``CE(cls head)``. Statistics, of the weights after the clip and before normalisation: `weight_mean`, `weight_min`,
    `weight_max`; and `clipped_share`.

    Args:
        ratio: `kd_over_cls` [ours], or `cls_over_kd` as a summary of the paper prints it [note]. On balanced CIFAR-100
            neither narrowed the gap that the paper narrows: weights were 1.9 to 2.1 (benchmarks/cifar100-quarters).
        standardize_logits: per sample, before the cross-entropies [note: an ablation of the paper finds it necessary].
        max_weight: the clip [ours]; None is off.
        normalize: divide weights by their batch mean [ours].
        cls_gradient: let the second head's loss reach the backbone; off, it changes no gradient of the student [ours].
        start: the share of training before which every weight is 1 [note: later works better]; 1 is never.
    """

    needs = Requirements(student_features=True)
    auxiliary = ("cls_head",)

    def __init__(
        self,
        setup: SlotSetup,
        *,
        ratio: str = "kd_over_cls",
        standardize_logits: bool = True,
        max_weight: float | None = 10.0,
        normalize: bool = True,
        cls_gradient: bool = False,
        start: float = 0.0,
    ) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)
        self.standardize_logits = check_switch("standardize_logits", standardize_logits)
        self.max_weight = check_max_weight(max_weight)
        self.normalize = check_switch("normalize", normalize)
        self.cls_gradient = check_switch("cls_gradient", cls_gradient)
        self.start = check_number("start", start, least=0.0, most=1.0)
        self.weighting = Progress().reached(self.start)
        self.cls_head = nn.Linear(setup.width("student", "inverse_propensity"), setup.num_classes)

    def begin_epoch(self, progress: Progress) -> None:
        self.weighting = progress.reached(self.start)

    def forward(self, context: BatchContext) -> SlotOutput:
        features_BD = context.student_features
        cls_logits_BC = project(self.cls_head, features_BD if self.cls_gradient else features_BD.detach())
        auxiliary = {"cls_head": cross_entropy(cls_logits_BC, context.target)}
        if not self.weighting:
            return SlotOutput(auxiliary["cls_head"].detach().new_ones(len(context.target)), auxiliary)
        clipped_B = inverse_propensity(
            context.student.logits,
            cls_logits_BC,
            context.target,
            self.ratio,
            self.max_weight,
            normalize=False,
            standardize_logits=self.standardize_logits,
        ).to(context.student.logits.dtype)
        weights_B = clip_and_normalize(clipped_B, None, context.batch_mean if self.normalize else None)
        limit = torch.inf if self.max_weight is None else self.max_weight
        clipped_share = (clipped_B >= limit).to(clipped_B.dtype).mean()
        return SlotOutput(weights_B, auxiliary, {**_statistics(clipped_B), "clipped_share": clipped_share})


class LossRatio(nn.Module):
    """``1 - exp(-CE(z_s, y) / CE(z_t, y))`` [paper: WSLD, Zhou et al. 2021], the denominator floored at 1e-6 [ours].

    Statistics: `weight_mean`, `weight_min`, `weight_max`.
    """

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__()

    def forward(self, context: BatchContext) -> SlotOutput:
        weights_B = loss_ratio(
            context.student.logits,
            context.given_teacher.logits,
            context.target,
            student_log_probs=context.student_log_probabilities(),
        )
        return SlotOutput(weights_B, statistics=_statistics(weights_B))


def _statistics(weights_B: Tensor) -> dict[str, Tensor]:
    least, most = weights_B.aminmax()
    return {"weight_mean": weights_B.mean(), "weight_min": least, "weight_max": most}


SAMPLE_WEIGHTS: dict[str, type[nn.Module]] = {"inverse_propensity": InversePropensity, "loss_ratio": LossRatio}
