"""Forward Kullback-Leibler divergence, teacher to student: summed over classes, one value a sample, times T^2."""

from __future__ import annotations

import torch
from torch import Tensor

from distail.errors import MethodError
from distail.functional.checks import check_logits, check_same_shape, check_temperature
from distail.functional.numerics import at_least_float32, log_probabilities


def kl_divergence(student_logits: Tensor, target_probs: Tensor, temperature: float) -> Tensor:
    """``T^2 * KL(q || softmax(z_s / T))``, one value a sample.

    Args:
        student_logits: (B, C).
        target_probs: (B, C), rows that sum to 1; zeros are allowed. No gradient flows into them.
        temperature: above 0.

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
    q_BC = at_least_float32(target_probs.detach())
    if not torch.compiler.is_compiling():
        if q_BC.device.type == "cpu" and not bool(((q_BC >= 0) & q_BC.isfinite()).all()):
            raise MethodError(
                f"target probabilities reach from {q_BC.min().item():g} to {q_BC.max().item():g}; expected "
                "probabilities, not logits: their softmax at this temperature"
            )
        if q_BC.is_inference():  # which could not be saved for the backward pass
            q_BC = q_BC.clone()
    log_p_BC = log_probabilities(student_logits, temperature)
    return temperature**2 * (torch.xlogy(q_BC, q_BC) - q_BC * log_p_BC).sum(dim=1)


def kl_of_log_probabilities(log_q_BC: Tensor, log_p_BC: Tensor) -> Tensor:
    """``KL(q || p)`` of two finite log-distributions: (B, C) twice to (B,). No factor T^2.

    >>> kl_of_log_probabilities(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    tensor([0.1438])
    """
    return (log_q_BC.exp() * (log_q_BC - log_p_BC)).sum(dim=1)
