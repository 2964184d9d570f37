"""Target repairs: teacher logits in, teacher logits out, so they can be chained; the softmax comes last.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.errors import MethodError
from distail.functional.checks import (
    at_least_float32,
    check_logits,
    check_number,
    check_one_a_class,
    check_target,
    check_temperature,
)
from distail.functional.class_weights import class_log_share
from distail.functional.supervised import adjust_logits


def swap_rectify(teacher_logits: Tensor, target: Tensor) -> Tensor:
    """If the teacher is wrong, swap its largest logit with that of the label.

    Per sample: if ``argmax z_t != y``, swap ``z_t[argmax]`` and ``z_t[y]``; else unchanged [code, paper: DR-KD,
    arXiv 2201.11319]. The authors' code swaps in place; this does not [ours]. A label that ties with the largest logit
    counts as correct: swapping equal values changes nothing.

    Args:
        teacher_logits: (B, C), any floating dtype, which is kept.
        target: (B,) int64.

    Returns:
        (B, C), detached from the teacher.

    >>> swap_rectify(torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([0, 1]))
    tensor([[3., 1., 2.],
            [1., 3., 2.]])
    """
    check_logits(teacher_logits, "teacher logits")
    check_target(target, teacher_logits)
    logits_BC = teacher_logits.detach()
    label_B1 = target[:, None]
    largest_B1, favorite_B1 = logits_BC.max(dim=1, keepdim=True)
    exchanged_BC = logits_BC.scatter(1, favorite_B1, logits_BC.gather(1, label_B1))
    return exchanged_BC.scatter(1, label_B1, largest_B1)


def reweigh_logits(teacher_logits: Tensor, log_weights: Tensor, temperature: float) -> Tensor:
    """Add ``T * log w``: the softmax at temperature T is then ``~ w * softmax(z_t / T)``. (B, C) and (C,) to (B, C).

    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> reweigh_logits(logits, torch.tensor([1.0, 3.0]).log(), temperature=2.0).div(2).softmax(1)
    tensor([[0.4754, 0.5246]])
    """
    check_logits(teacher_logits, "teacher logits")
    check_one_a_class(log_weights, "log weights", teacher_logits)
    check_temperature(temperature)
    logits_BC = at_least_float32(teacher_logits.detach())
    return logits_BC + temperature * log_weights.to(logits_BC.dtype)


def remove_prior(logits: Tensor, class_counts: Sequence[int] | Tensor, tau: float = 1.0) -> Tensor:
    """Logit adjustment: logits minus ``tau`` times the log class priors (class shares of the training data).

    ``z - tau * log(n / sum n)`` [paper: Menon et al. 2021, arXiv 2007.07314, logit adjustment after training]. A
    network trained with plain cross-entropy learns ``p ~ share * p_balanced``: at tau 1 the softmax of the result is
    ``p_balanced``. At temperature T divide afterwards: ``softmax((z - log share) / T)``. With ``tau = T`` that is
    `reweigh_targets` with weights ``1 / n``.

    Args:
        logits: (B, C), of a teacher, a student, or stored predictions; the gradient flows through.
        class_counts: (C,) training images per class, whole numbers of at least 1.
        tau: strength of the adjustment; 0: no change.

    Returns:
        (B, C), in at least float32.

    Raises:
        MethodError: shapes that do not fit, a class without images, or a tau that is not a finite number.

    >>> remove_prior(torch.tensor([[3.0, 1.0]]).log(), [30, 10]).softmax(1)
    tensor([[0.5000, 0.5000]])
    """
    check_logits(logits, "logits")
    log_share_C = class_log_share(class_counts).to(logits.device, at_least_float32(logits).dtype)
    return adjust_logits(logits, log_share_C, -check_number("tau", tau))


def power_logits(teacher_logits: Tensor, exponent: float = 0.5) -> Tensor:
    """Multiply by the exponent: the softmax is then ``~ p_t**exponent`` [paper: DiVE, He et al. 2021]. (B, C) twice.

    >>> power_logits(torch.tensor([[4.0, 0.0]]), 0.5)
    tensor([[2., 0.]])
    """
    check_logits(teacher_logits, "teacher logits")
    check_number("exponent", exponent, least=0.0)
    return at_least_float32(teacher_logits.detach()) * exponent


def reweigh_targets(teacher_logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """The teacher's distribution with every class multiplied by its weight, renormalized per sample.

    ``q ~ w * softmax(z_t / T)`` [code: BKD, arXiv 2104.10510], computed in log space.

    Args:
        teacher_logits: (B, C).
        weights: (C,), positive.
        temperature: above 0.

    Returns:
        (B, C) probabilities, in at least float32, detached.

    Raises:
        MethodError: mismatched shapes, a weight that is not positive (checked on the CPU), or an invalid temperature.

    >>> reweigh_targets(torch.tensor([[0.0, 0.0]]), torch.tensor([1.0, 3.0]), temperature=2.0)
    tensor([[0.2500, 0.7500]])
    """
    check_logits(teacher_logits, "teacher logits")
    check_one_a_class(weights, "weights", teacher_logits)
    check_temperature(temperature)
    if weights.device.type == "cpu" and not torch.compiler.is_compiling() and not bool((weights > 0).all()):
        raise MethodError(f"weights reach down to {weights.min().item():g}; expected every weight above 0")
    return torch.softmax(reweigh_logits(teacher_logits, weights.log(), temperature) / temperature, dim=1)
