"""The second slot: repairs of the teacher's logits, (B, C) to (B, C), applied in the order in which they are named.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from distail.functional import effective_number_weights, power_logits, reweigh_logits, swap_rectify
from distail.functional.checks import check_number, of_target
from distail.methods.context import BatchContext, Progress, SlotOutput, SlotSetup
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

    Args:
        beta: of the effective number; 0 is all weights 1.
        defer_until: the share of training before which every weight is 1: active from
            ``epoch / epochs >= defer_until``, epochs from 0; 1 is never.
    """

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
    """Flatten the target: ``p_t**exponent``, renormalised [paper: DiVE].

    Args:
        exponent: 1 changes nothing, 0 makes the target uniform.
    """

    def __init__(self, setup: SlotSetup, *, exponent: float = 0.5) -> None:
        super().__init__()
        self.exponent = check_number("exponent", exponent, least=0.0)

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        return SlotOutput(power_logits(logits_BC, self.exponent))


TARGETS: dict[str, type[nn.Module]] = {"power": Power, "reweigh": Reweigh, "swap": Swap}
