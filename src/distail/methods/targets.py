"""The second slot: repairs of the teacher's logits, (B, C) to (B, C), applied in the order in which they are named.

A repair may change the student's logits as well, for the divergence alone (`SlotOutput.student`).

Shapes: B batch, C classes.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from distail.functional import (
    adjust_logits,
    effective_number_weights,
    power_logits,
    reweigh_logits,
    standardize,
    swap_rectify,
)
from distail.functional.checks import check_choice, check_number, of_target
from distail.methods.context import BALANCED, BatchContext, Progress, SlotOutput, SlotSetup
from distail.methods.label_kinds import KINDS
from distail.methods.modules import FixedDtypeBuffer


class Swap(nn.Module):
    """Where the teacher is wrong, exchange its largest logit with the label's [code, paper: DR-KD].

    Statistic `rectified_share`: the share of the batch whose label was not the teacher's first choice.
    """

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__()

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        rectified_BC = swap_rectify(logits_BC, context.target)
        raised_B = of_target(rectified_BC, context.target) > of_target(logits_BC, context.target)
        return SlotOutput(rectified_BC, statistics={"rectified_share": raised_B.to(logits_BC.dtype).mean()})


class Reweigh(nn.Module):
    """Multiply every class of the target by its effective-number weight: adds ``T * log w`` [code: BKD].

    Where a sample has several classes that multiplies the odds of each [ours].

    Args:
        beta: of the effective number; 0 is all weights 1.
        defer_until: the share of training before which every weight is 1: active from
            ``epoch / epochs >= defer_until``, epochs from 0; 1 is never.
    """

    label_kinds = KINDS
    posterior = BALANCED
    neutral: ClassVar[dict[str, float]] = {"beta": 0.0, "defer_until": 1.0}
    begins_at = "defer_until"

    def __init__(self, setup: SlotSetup, *, beta: float = 0.9999, defer_until: float = 0.0) -> None:
        super().__init__()
        self.log_weights = FixedDtypeBuffer(effective_number_weights(setup.class_counts, beta).log())
        self.defer_until = check_number("defer_until", defer_until, least=0.0, most=1.0)
        self.active = Progress().reached(defer_until)

    def begin_epoch(self, progress: Progress) -> None:
        self.active = progress.reached(self.defer_until)

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        if not self.active:
            return SlotOutput(logits_BC)
        return SlotOutput(reweigh_logits(logits_BC, self.log_weights(logits_BC), context.temperature))


class Power(nn.Module):
    """Flatten the target: ``p_t**exponent``, renormalized [paper: DiVE].

    Args:
        exponent: 1 changes nothing, 0 makes the target uniform.
    """

    label_kinds = KINDS
    scales = True  # the logits, and so the class priors in them
    neutral: ClassVar[dict[str, float]] = {"exponent": 1.0}

    def __init__(self, setup: SlotSetup, *, exponent: float = 0.5) -> None:
        super().__init__()
        self.exponent = check_number("exponent", exponent, least=0.0)

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        return SlotOutput(power_logits(logits_BC, self.exponent))


class Debias(nn.Module):
    """Subtract the log class priors of the training data from the teacher's logits: ``z_t - tau * log share`` [ours].

    A teacher trained with plain cross-entropy learns ``p ~ share * p_balanced``; logit adjustment (Menon et al.
    2021) takes the share out, once, whatever the temperature is. Where a sample has several classes the log odds of
    each class, ``log(n / (N - n))``, stand in place of the log share.

    Args:
        tau: how much of it; 0 changes nothing. On the student's side a teacher that generalizes wants 1, one that has
            memorized its training images the temperature: its target is one-hot at any T.
        side: `teacher`, or `student`: leave the target as it is and add the shares to the student's logits instead,
            ``KL(softmax(z_t / T) || softmax((z_s + tau * log share) / T))``. The same optimum for a teacher that
            generalizes; from one that knows its training images by heart only this side learns equal shares.
    """

    label_kinds = KINDS
    posterior = BALANCED
    neutral: ClassVar[dict[str, float]] = {"tau": 0.0}

    def __init__(self, setup: SlotSetup, *, tau: float = 1.0, side: str = "teacher") -> None:
        super().__init__()
        self.log_share = FixedDtypeBuffer(setup.log_prior())
        self.tau = check_number("tau", tau, least=0.0)
        self.side = check_choice("side", side, ("teacher", "student"))

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        log_prior_C = self.log_share(logits_BC)
        if self.side == "student":
            return SlotOutput(logits_BC, student=adjust_logits(context.student.logits, log_prior_C, self.tau))
        return SlotOutput(adjust_logits(logits_BC, log_prior_C, -self.tau))


class Standardize(nn.Module):
    """Standardize both sides' logits over classes, per sample (sample std) [paper, code: Sun et al. 2024].

    The divergence then compares the shape of the two answers and not how large their logits are.
    """

    scales = True
    both_sides = True  # what it does to the target says nothing without what it does to the student

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__()

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        return SlotOutput(
            standardize(logits_BC, correction=1), student=standardize(context.student.logits, correction=1)
        )


TARGETS: dict[str, type[nn.Module]] = {
    "debias": Debias,
    "power": Power,
    "reweigh": Reweigh,
    "standardize": Standardize,
    "swap": Swap,
}
