"""How unevenly IPWD and WSLD would weigh the images: with a student's heads, or with stand-ins where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distail.audit.teacher_statistics import ByGroup
from distail.evaluation.checks import by_rows
from distail.functional.class_weights import class_log_share
from distail.functional.sample_weights import clip_and_normalize, loss_ratio, propensity_ratio

QUANTILES = {"p10": 0.1, "median": 0.5, "p90": 0.9}

NO_STUDENT = "the weights compare the student's loss with the teacher's: before training there is no student"
TRAINED_STUDENT = "this run's student as it was at the end of training"
STAND_IN = (
    "without a student's two heads, the teacher stands in for the distilled head (a student that copies it) and the "
    "class frequencies for the label-only head. This is not the paper's weight, which compares two heads of the "
    "student and changes during training; it is large where the teacher explains an image worse than knowing the "
    "class frequencies alone would"
)
OWN_HEADS = "both heads of this run's student as they were at the end of training"


@dataclass(frozen=True)
class StudentHeads:
    """A student's logits (N, C) for the audited images, and those of its label-only head where it was trained with one.

    `label_only` is IPWD's second head, which lives in training only: a run's checkpoint has it, exported weights not.
    """

    distilled: Tensor
    label_only: Tensor | None = None


def stand_in_weights(
    teacher_NC: Tensor,
    target_N: Tensor,
    class_counts: tuple[int, ...],
    ratio: str = "kd_over_cls",
    standardize_logits: bool = True,
) -> Tensor:
    """A student-free stand-in for IPWD's weights before the clip: (N,) float64. [ours], NOT the paper's.

    IPWD (arXiv 2210.12787) weighs by ``1 + H_kd / H_cls``, the standardised cross-entropies of two heads of the
    student. Before training there is none. Here ``H_kd`` is the teacher's, which is that of a student that copies it
    perfectly, and ``H_cls`` that of constant logits, the log of the class shares: a head that has learnt nothing from
    the labels but how frequent they are. A weight above 2 says that the teacher explains the image worse than the
    class frequencies alone would. What it does not know: how a label-only head would do on the image (where better
    than the frequencies, the paper's weight is the larger one), and how both heads change.

    >>> stand_in_weights(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), (9, 1)).round(decimals=2)
    tensor([2., 2.], dtype=torch.float64)
    """
    frequencies_NC = class_log_share(class_counts).expand(len(teacher_NC), -1)
    return propensity_weights(teacher_NC, frequencies_NC, target_N, ratio, standardize_logits)


def propensity_weights(
    kd_NC: Tensor, cls_NC: Tensor, target_N: Tensor, ratio: str = "kd_over_cls", standardize_logits: bool = True
) -> Tensor:
    """IPWD's weights of two heads, before the clip: (N, C) twice and (N,) to (N,) float64, in blocks of rows."""
    weigh = partial(propensity_ratio, ratio=ratio, standardize_logits=standardize_logits)
    return _in_double(weigh, kd_NC, cls_NC, target_N)


def loss_ratio_weights(student_NC: Tensor, teacher_NC: Tensor, target_N: Tensor) -> Tensor:
    """WSLD's weights: (N, C) twice and (N,) to (N,) float64, in blocks of rows."""
    return _in_double(loss_ratio, student_NC, teacher_NC, target_N)


def sample_weight_spreads(
    teacher_NC: Tensor,
    target_N: Tensor,
    class_counts: tuple[int, ...],
    student: StudentHeads | None,
    by_group: ByGroup,
    *,
    ratio: str,
    standardize_logits: bool,
    max_weight: float | None,
) -> dict[str, Any]:
    """The `spread` of each method's weights, overall and by group, and what the numbers stand for (``meaning``)."""
    if student is not None and student.label_only is not None:
        raw_N = propensity_weights(student.distilled, student.label_only, target_N, ratio, standardize_logits)
        heads, meaning = "own", OWN_HEADS
    else:
        raw_N = stand_in_weights(teacher_NC, target_N, class_counts, ratio, standardize_logits)
        heads, meaning = "stand-in", STAND_IN
    own = {"heads": heads, "meaning": meaning, "ratio": ratio, "standardize_logits": standardize_logits}
    ipwd = {**own, **_described(raw_N, max_weight, by_group)}
    if student is None:
        return {"ipwd": ipwd, "wsld": {"meaning": NO_STUDENT, "overall": None, "groups": None}}
    ratio_N = loss_ratio_weights(student.distilled, teacher_NC, target_N)
    return {"ipwd": ipwd, "wsld": {"meaning": TRAINED_STUDENT, **_described(ratio_N, None, by_group)}}


def _described(weights_N: Tensor, max_weight: float | None, by_group: ByGroup) -> dict[str, Any]:
    mean = float(clip_and_normalize(weights_N, max_weight, None).mean())
    described = by_group.describe(lambda chosen_N: spread(weights_N[chosen_N], max_weight, mean))
    return {"max_weight": max_weight, **described}


def spread(weights_N: Tensor, max_weight: float | None, overall_mean: float) -> dict[str, Any]:
    """The distribution of weights (N,), N at least 1, after the clip and before any normalisation.

    Returns:
        ``mean``, ``min``, ``p10``, ``median``, ``p90``, ``max``; ``clipped_share`` in percent (None without a clip);
        ``relative``: the mean over `overall_mean`, which is what normalised weights come to.

    >>> spread(torch.tensor([1.0, 3.0, 50.0]), 5.0, overall_mean=3.0)["clipped_share"]
    33.33333333333333
    """
    clipped_N = clip_and_normalize(weights_N, max_weight, None)
    levels = torch.tensor(list(QUANTILES.values()), dtype=clipped_N.dtype)
    mean = float(clipped_N.mean())
    return {
        "mean": mean,
        "relative": mean / overall_mean,
        "min": float(clipped_N.min()),
        **dict(zip(QUANTILES, torch.quantile(clipped_N, levels).tolist(), strict=True)),
        "max": float(clipped_N.max()),
        "clipped_share": None if max_weight is None else float(100 * (weights_N > max_weight).double().mean()),
    }


def _in_double(
    weigh: Callable[[Tensor, Tensor, Tensor], Tensor], first_NC: Tensor, second_NC: Tensor, target_N: Tensor
) -> Tensor:
    return by_rows(
        lambda first, second, target: weigh(first.double(), second.double(), target),
        first_NC,
        second_NC,
        target_N,
        dtype=torch.float64,
    )
