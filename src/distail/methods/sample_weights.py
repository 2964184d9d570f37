"""The fourth slot: a weight for each sample's distillation term. No gradient flows through a weight.

Shapes: B batch, C classes, D feature width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from distail.functional import cross_entropy, inverse_propensity, loss_ratio
from distail.functional.checks import check_number, check_switch, of_target
from distail.functional.sample_weights import check_max_weight, check_ratio, clip_and_normalize
from distail.methods.context import BatchContext, Progress, Requirements, SlotOutput, SlotSetup
from distail.methods.modules import project


class InversePropensity(nn.Module):
    """``w = 1 + H_kd / H_cls`` [note: IPWD; which way round: ours]: samples that the teacher's domain under-represents
    weigh more.

    Brings a second classification head on the student's features, trained with labels only: auxiliary term
    ``CE(cls head)`` [ours: how the heads are trained together is not public]. The student's own head is the one that
    is exported. Statistics, of the weights after the clip and before normalization: `weight_mean`, `weight_min`,
    `weight_max`, the percentiles `weight_p05`, `weight_p50`, `weight_p95`; and `clipped_share`.

    Args:
        kd_head_ce: let the student's own head learn from labels as well [ours]; off, it learns from ``w * KL`` alone.
        ratio: `kd_over_cls` [ours], or `cls_over_kd` as a summary of the paper prints it [note].
        standardize_logits: per sample, before the cross-entropies [note: an ablation of the paper finds it necessary].
        max_weight: the clip [ours]; None is off.
        normalize: divide weights by their batch mean [ours].
        cls_gradient: let the second head's loss reach the backbone; off, it changes no gradient of the student [ours].
        start: the share of training before which every weight is 1 [note: later works better]; 1 is never.
    """

    needs = Requirements(student_features=True)
    auxiliary = ("cls_head",)
    without_labels: ClassVar[dict[str, bool]] = {"kd_head_ce": False}
    """With these parameters the student's own head learns from no labels."""
    begins_at = "start"

    def __init__(
        self,
        setup: SlotSetup,
        *,
        kd_head_ce: bool = True,
        ratio: str = "kd_over_cls",
        standardize_logits: bool = True,
        max_weight: float | None = 10.0,
        normalize: bool = True,
        cls_gradient: bool = False,
        start: float = 0.0,
    ) -> None:
        super().__init__()
        self.replaces_labels = not check_switch("kd_head_ce", kd_head_ce)
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

    Statistics: `weight_mean`, `weight_min`, `weight_max`, and the percentiles `weight_p05`, `weight_p50`, `weight_p95`.
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
    # with a number for the level, since a tensor made of numbers would have a GPU wait for it at every step
    percentiles = {f"weight_p{percent:02d}": torch.quantile(weights_B, percent / 100) for percent in (5, 50, 95)}
    return {"weight_mean": weights_B.mean(), "weight_min": least, "weight_max": most, **percentiles}


class Gate(nn.Module):
    """Distill only where the repaired target favors the label; elsewhere the label is learned instead [ours].

    Weight 1 where the target's first choice is the label, else 0; there the supervised loss is added as an auxiliary
    term. Statistic `open_share`: the share of the batch that is distilled.

    Args:
        label_weight: of the supervised loss where the gate is shut, beside the supervised term itself.
    """

    auxiliary = ("label_instead",)
    label_weight_key = "label_weight"  # the parameter by which labels are learned whatever the supervised term weighs

    def __init__(self, setup: SlotSetup, *, label_weight: float = 1.0) -> None:
        super().__init__()
        self.label_weight = check_number("label_weight", label_weight, least=0.0)

    def forward(self, context: BatchContext) -> SlotOutput:
        logits_BC = context.repaired_logits
        open_B = of_target(logits_BC, context.target) >= logits_BC.amax(dim=1)
        weights_B = open_B.to(logits_BC.dtype)
        instead_B = self.label_weight * (1.0 - weights_B) * context.supervised_losses
        return SlotOutput(weights_B, {"label_instead": instead_B}, {"open_share": weights_B.mean()})


SAMPLE_WEIGHTS: dict[str, type[nn.Module]] = {
    "gate": Gate,
    "inverse_propensity": InversePropensity,
    "loss_ratio": LossRatio,
}
