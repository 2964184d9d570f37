"""The first slot: what the student learns from the labels. Each entry gives one loss a sample."""

from __future__ import annotations

from typing import Any

from torch import nn

from distail.functional import (
    adjust_logits,
    class_log_share,
    cross_entropy,
    effective_number_weights,
    focal_of_cross_entropy,
    label_margins,
    subtract_margin,
    weighted_by_label,
)
from distail.functional.numerics import check_number, of_target
from distail.objective.context import Context, Progress, Reply, Setup
from distail.objective.exact import Exact


def _label_losses(context: Context) -> Any:
    return -of_target(context.student_log_probabilities(), context.target)


class CrossEntropy(nn.Module):
    """``CE(z_s, y)``."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()

    def forward(self, context: Context) -> Reply:
        return Reply(_label_losses(context))


SUPERVISED: dict[str, type[nn.Module]] = {"ce": CrossEntropy}
