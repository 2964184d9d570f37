"""The first slot: what the student learns from the labels. Each entry gives one loss per sample.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

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
from distail.functional.checks import check_number
from distail.methods.context import BALANCED, BatchContext, Progress, Requirements, SlotOutput, SlotSetup
from distail.methods.modules import FixedDtypeBuffer
from distail.methods.multi_label import Asymmetric, BinaryCrossEntropy, DistributionBalanced


class CrossEntropy(nn.Module):
    """``CE(z_s, y)``.

    Args:
        label_smoothing: the share of the label that all classes get alike [paper: Szegedy et al. 2016].
    """

    def __init__(self, setup: SlotSetup, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_number("label_smoothing", label_smoothing, least=0.0, below=1.0)

    def forward(self, context: BatchContext) -> SlotOutput:
        return SlotOutput(label_losses(context, self.label_smoothing))


class ClassBalanced(nn.Module):
    """CE times the effective-number weight of the label, over the batch mean of those weights [paper: Cui et al. 2019].

    Args:
        beta: of the effective number; 0 is plain CE.
    """

    posterior = BALANCED
    neutral: ClassVar[dict[str, float]] = {"beta": 0.0}

    def __init__(self, setup: SlotSetup, *, beta: float = 0.9999) -> None:
        super().__init__()
        self.class_weights = FixedDtypeBuffer(effective_number_weights(setup.class_counts, beta))

    def forward(self, context: BatchContext) -> SlotOutput:
        losses_B = label_losses(context)
        return SlotOutput(
            weighted_by_label(losses_B, self.class_weights(losses_B), context.target, batch_mean=context.batch_mean)
        )


class Focal(nn.Module):
    """``(1 - p[y])**gamma * CE`` [paper: Lin et al. 2017].

    Args:
        gamma: 0 is plain CE.
    """

    def __init__(self, setup: SlotSetup, *, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = check_number("gamma", gamma, least=0.0)

    def forward(self, context: BatchContext) -> SlotOutput:
        log_probs_BC = context.student_log_probabilities()
        return SlotOutput(focal_loss(context.student.logits, context.target, self.gamma, log_probs=log_probs_BC))


class LDAM(nn.Module):
    """``CE(scale * (cosine - margin of the label), y)``, later re-weighted by class: LDAM-DRW [paper: Cao et al. 2019].

    Made for `classifier: cosine`, whose logits are cosines times its own scale: they are divided by `classifier_scale`,
    and multiplied by the loss's `scale` after the margin was taken off.

    Args:
        largest_margin: of the rarest class; the others are smaller by ``n**-0.25``.
        scale: of the cosines inside the loss.
        classifier_scale: the model's own; 30 is that of our cosine classifier.
        beta: of the effective number in the re-weighting.
        defer_until: the share of training after which losses are weighted as by `class_balanced`; 1 is never.
    """

    needs = Requirements(cosine_classifier=True)
    posterior = None
    begins_at = "defer_until"

    def __init__(
        self,
        setup: SlotSetup,
        *,
        largest_margin: float = 0.5,
        scale: float = 30.0,
        classifier_scale: float = 30.0,
        beta: float = 0.9999,
        defer_until: float = 0.8,
    ) -> None:
        super().__init__()
        self.margins = FixedDtypeBuffer(label_margins(setup.class_counts, largest_margin))
        self.class_weights = FixedDtypeBuffer(effective_number_weights(setup.class_counts, beta))
        self.scale = check_number("scale", scale, above=0.0)
        self.classifier_scale = check_number("classifier_scale", classifier_scale, above=0.0)
        self.defer_until = check_number("defer_until", defer_until, least=0.0, most=1.0)
        self.reweighted = Progress().reached(self.defer_until)

    def begin_epoch(self, progress: Progress) -> None:
        self.reweighted = progress.reached(self.defer_until)

    def forward(self, context: BatchContext) -> SlotOutput:
        logits_BC, target = context.student.logits, context.target
        margins_C = self.margins(logits_BC)
        losses_B = cross_entropy(
            subtract_margin(logits_BC, target, margins_C, self.scale, self.classifier_scale), target
        )
        if self.reweighted:
            losses_B = weighted_by_label(losses_B, self.class_weights(losses_B), target, batch_mean=context.batch_mean)
        return SlotOutput(losses_B)


class BalancedSoftmax(nn.Module):
    """CE of the logits plus the log class priors [paper: Ren et al. 2020]: `logit_adjusted` at tau 1.

    Args:
        label_smoothing: the share of the label that all classes get alike.
    """

    posterior = BALANCED

    def __init__(self, setup: SlotSetup, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_number("label_smoothing", label_smoothing, least=0.0, below=1.0)
        self.log_share = FixedDtypeBuffer(class_log_share(setup.class_counts))

    def forward(self, context: BatchContext) -> SlotOutput:
        logits_BC = context.student.logits
        adjusted_BC = adjust_logits(logits_BC, self.log_share(logits_BC))
        return SlotOutput(cross_entropy(adjusted_BC, context.target, label_smoothing=self.label_smoothing))


class LogitAdjusted(nn.Module):
    """CE of the logits plus tau times the log class priors [paper: Menon et al. 2021].

    Args:
        tau: 0 is plain CE; at 1 this is the same function as `balanced_softmax`.
        label_smoothing: the share of the label that all classes get alike.
    """

    posterior = BALANCED
    neutral: ClassVar[dict[str, float]] = {"tau": 0.0}

    def __init__(self, setup: SlotSetup, *, tau: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_number("label_smoothing", label_smoothing, least=0.0, below=1.0)
        self.log_share = FixedDtypeBuffer(class_log_share(setup.class_counts))
        self.tau = check_number("tau", tau, least=0.0)

    def forward(self, context: BatchContext) -> SlotOutput:
        logits_BC = context.student.logits
        adjusted_BC = adjust_logits(logits_BC, self.log_share(logits_BC), self.tau)
        return SlotOutput(cross_entropy(adjusted_BC, context.target, label_smoothing=self.label_smoothing))


def label_losses(context: BatchContext, label_smoothing: float = 0.0) -> Tensor:
    """Plain cross-entropy, from the log-probabilities that the other slots share."""
    log_probs_BC = context.student_log_probabilities()
    return cross_entropy(
        context.student.logits, context.target, log_probs=log_probs_BC, label_smoothing=label_smoothing
    )


SUPERVISED: dict[str, type[nn.Module]] = {
    "asymmetric": Asymmetric,
    "balanced_softmax": BalancedSoftmax,
    "bce": BinaryCrossEntropy,
    "ce": CrossEntropy,
    "class_balanced": ClassBalanced,
    "distribution_balanced": DistributionBalanced,
    "focal": Focal,
    "ldam": LDAM,
    "logit_adjusted": LogitAdjusted,
}
