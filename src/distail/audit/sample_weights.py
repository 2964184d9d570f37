"""How unevenly IPWD and WSLD would weigh the images: with a student's heads, or with stand-ins where there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distail.audit.content import Grouped, LossRatioWeights, PropensityWeights, SampleWeights, WeightSpread
from distail.audit.target_repairs import slot_entries, whole_composition
from distail.audit.teacher_statistics import ImageGroups
from distail.evaluation.checks import by_rows
from distail.functional.class_weights import class_log_share
from distail.functional.sample_weights import clip_and_normalize, inverse_propensity, loss_ratio

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

    IPWD (arXiv 2210.12787) weighs by ``1 + H_kd / H_cls``, the standardized cross-entropies of two heads of the
    student. Before training there is none. Here ``H_kd`` is the teacher's, which is that of a student that copies it
    perfectly, and ``H_cls`` that of constant logits, the log of the class shares: a head that has learned nothing from
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
    weigh = partial(
        inverse_propensity, ratio=ratio, max_weight=None, normalize=False, standardize_logits=standardize_logits
    )
    return _in_double(weigh, kd_NC, cls_NC, target_N)


def loss_ratio_weights(student_NC: Tensor, teacher_NC: Tensor, target_N: Tensor) -> Tensor:
    """WSLD's weights: (N, C) twice and (N,) to (N,) float64, in blocks of rows."""
    return _in_double(loss_ratio, student_NC, teacher_NC, target_N)


def describe_weights(
    teacher_NC: Tensor,
    target_N: Tensor,
    class_counts: tuple[int, ...],
    groups: ImageGroups,
    student: StudentHeads | None,
    method: Mapping[str, object] | None,
) -> SampleWeights:
    """How unevenly each method would weigh the images, overall and by group, and what the numbers stand for.

    Args:
        teacher_NC, target_N, class_counts: what is audited.
        groups: its images by group.
        student: its logits for the same images, where there is one.
        method: the experiment's own; where it weighs by inverse propensity, IPWD's weights are those of its parameters.
    """
    parameters = _propensity_parameters({"name": "ipwd"} if method is None else method)
    parameters = parameters or _propensity_parameters({"name": "ipwd"})
    ratio, standardize = str(parameters["ratio"]), bool(parameters["standardize_logits"])
    limit = parameters["max_weight"]
    max_weight = float(limit) if isinstance(limit, int | float) else None
    if student is not None and student.label_only is not None:
        weights_N = propensity_weights(student.distilled, student.label_only, target_N, ratio, standardize)
        heads, meaning = "own", OWN_HEADS
    else:
        weights_N = stand_in_weights(teacher_NC, target_N, class_counts, ratio, standardize)
        heads, meaning = "stand-in", STAND_IN
    ipwd: PropensityWeights = {
        "heads": heads,
        "meaning": meaning,
        "ratio": ratio,
        "standardize_logits": standardize,
        "max_weight": max_weight,
        **_spreads(weights_N, max_weight, groups),
    }
    wsld: LossRatioWeights = {"meaning": NO_STUDENT, "overall": None, "groups": None}
    if student is not None:
        spreads = _spreads(loss_ratio_weights(student.distilled, teacher_NC, target_N), None, groups)
        wsld = {"meaning": TRAINED_STUDENT, "max_weight": None, **spreads}
    return {"ipwd": ipwd, "wsld": wsld}


def _propensity_parameters(method: Mapping[str, object]) -> dict[str, object]:
    """Which way round a method's weights are, and where they are clipped; empty where it does not weigh so."""
    for entry, parameters in slot_entries(whole_composition(method), "weights"):
        if entry.name == "inverse_propensity":
            return parameters
    return {}


def _spreads(weights_N: Tensor, max_weight: float | None, groups: ImageGroups) -> Grouped[WeightSpread]:
    mean = float(clip_and_normalize(weights_N, max_weight, None).mean())
    return groups.describe(lambda chosen_N: spread(weights_N[chosen_N], max_weight, mean))


def spread(weights_N: Tensor, max_weight: float | None, overall_mean: float) -> WeightSpread:
    """The distribution of weights (N,), N at least 1, after the clip and before any normalization.

    Args:
        weights_N: before the clip.
        max_weight: where they are clipped; None: nowhere.
        overall_mean: of all images, to which `relative` is the mean.

    >>> spread(torch.tensor([1.0, 3.0, 50.0]), 5.0, overall_mean=3.0)["clipped_share"]
    33.33333333333333
    """
    clipped_N = clip_and_normalize(weights_N, max_weight, None)
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=clipped_N.dtype)
    p10, median, p90 = torch.quantile(clipped_N, levels).tolist()
    mean = float(clipped_N.mean())
    return {
        "mean": mean,
        "relative": mean / overall_mean,
        "min": float(clipped_N.min()),
        "p10": p10,
        "median": median,
        "p90": p90,
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
