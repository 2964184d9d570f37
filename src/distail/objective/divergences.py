"""The third slot: how far the student is from the repaired target. One value a sample, already times T^2."""

from __future__ import annotations

from torch import Tensor, nn

from distail.functional import kl_of_log_probabilities
from distail.functional.numerics import log_probabilities
from distail.objective.context import Context, Reply, Setup


class KL(nn.Module):
    """``T^2 * KL(q || p_s^T)``, teacher to student."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()

    def forward(self, context: Context, logits_BC: Tensor) -> Reply:
        temperature = context.temperature
        log_q_BC = log_probabilities(logits_BC, temperature)
        log_p_BC = context.student_log_probabilities(temperature)
        return Reply(temperature**2 * kl_of_log_probabilities(log_q_BC, log_p_BC))


DIVERGENCES: dict[str, type[nn.Module]] = {"kl": KL}
