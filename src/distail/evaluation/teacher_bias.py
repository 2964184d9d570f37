"""What a teacher's predictions give the head and take from the tail, in numbers and in one sentence.

Shapes: C classes, M samples of one third, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from distail.evaluation.checks import checked_predictions
from distail.evaluation.groups import THIRDS, group_of_class, group_shares, thirds
from distail.evaluation.metrics import ClassCounts, group_means

TOP_CONFUSIONS = 10

GroupShares = dict[str, float | None]
"""Percent by third; None where it cannot be known."""
Flow = dict[str, GroupShares | None]
"""What becomes of the samples of each third; None for a third without samples."""

# Of some errors, how many name this class, and the percent of them.
Confusion = TypedDict("Confusion", {"class": int, "errors": int, "share": float})


class ErrorFlow(TypedDict):
    """What `error_flow` finds: `top_confusions` are the most frequent wrong predictions for samples of the tail."""

    flow: Flow
    top_confusions: list[Confusion]


class TeacherBias(TypedDict):
    """What `teacher_bias` finds, in percent."""

    samples: int
    wrong: float
    true_share: GroupShares
    predicted_share: GroupShares
    recall: GroupShares
    tail_errors: GroupShares


def error_flow(predicted_N: Tensor, target_N: Tensor, counts: Sequence[int]) -> ErrorFlow:
    """What becomes of the samples of each third of the classes, in percent of that third's samples.

    Args:
        predicted_N: (N,) int64 predicted classes.
        target_N: (N,) int64 labels, 0 to C - 1.
        counts: (C,) training images of each class, at least 1; they decide the thirds.

    Returns:
        ``flow``: for each third ``correct`` and, by the third of the predicted class, the wrong predictions (``head``,
        ``medium``, ``tail``), which sum to 100; None for a third without samples and for a destination without classes.
        ``top_confusions``: the most frequent wrong predictions for samples of the tail, at most ten, most frequent
        first, ties by index, as ``class``, ``errors`` and ``share`` (percent of the tail's errors). Plain numbers,
        ready for JSON.

    >>> found = error_flow(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 2, 2]), [300, 50, 5])
    >>> found["flow"]["tail"]
    {'correct': 0.0, 'head': 50.0, 'medium': 50.0, 'tail': 0.0}
    >>> found["top_confusions"][0]
    {'class': 0, 'errors': 1, 'share': 50.0}
    """
    groups = thirds(counts)
    third_C = group_of_class(groups, len(counts))
    wrong_N = predicted_N != target_N
    from_N, into_N = third_C[target_N], third_C[predicted_N]
    flow = {
        name: _outcomes(wrong_N[from_N == position], into_N[from_N == position], groups)
        for position, name in enumerate(THIRDS)
    }
    errors_C = tail_errors(predicted_N, target_N, counts)
    order = torch.argsort(errors_C, descending=True, stable=True)[:TOP_CONFUSIONS].tolist()
    total = int(errors_C.sum())
    confusions: list[Confusion] = []
    for c in order:
        errors = int(errors_C[c])
        if errors:
            confusions.append({"class": c, "errors": errors, "share": 100 * errors / total})
    return {"flow": flow, "top_confusions": confusions}


def tail_errors(predicted_N: Tensor, target_N: Tensor, counts: Sequence[int]) -> Tensor:
    """How many wrong predictions of tail images name each class: (C,) int64.

    >>> tail_errors(torch.tensor([0, 2, 1]), torch.tensor([2, 2, 0]), [300, 50, 5])
    tensor([1, 0, 0])
    """
    tail_C = torch.zeros(len(counts), dtype=torch.bool)
    tail_C[list(thirds(counts)["tail"])] = True
    return torch.bincount(predicted_N[(predicted_N != target_N) & tail_C[target_N]], minlength=len(counts))


def _outcomes(wrong_M: Tensor, into_M: Tensor, groups: dict[str, tuple[int, ...]]) -> GroupShares | None:
    samples = len(wrong_M)
    if samples == 0:
        return None
    wrong_into = torch.bincount(into_M[wrong_M], minlength=len(THIRDS)).tolist()
    shares = {
        name: 100 * count / samples if groups[name] else None for name, count in zip(THIRDS, wrong_into, strict=True)
    }
    return {"correct": 100 * (samples - sum(wrong_into)) / samples, **shares}


def teacher_bias(scores_NC: Tensor, target_N: Tensor, class_counts: Sequence[int] | Tensor) -> TeacherBias:
    """How a teacher's top predictions spread over head, medium and tail (thirds), in percent.

    Args:
        scores_NC: logits or probabilities, (N, C); only each row's largest entry counts.
        target_N: (N,) integer labels.
        class_counts: (C,) training images of each class.

    Returns:
        ``samples``; ``wrong`` (share of samples the teacher gets wrong); per third ``true_share`` (of the labels),
        ``predicted_share`` (of the predictions), ``recall`` (mean over its classes, None without one) and
        ``tail_errors`` (where the tail's errors go; every entry None when it makes none).

    Raises:
        DataError: as `distail.evaluation.metrics.evaluate_predictions`.

    >>> import torch
    >>> bias = teacher_bias(torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 2]), [300, 50, 5])
    >>> bias["wrong"], bias["predicted_share"]["head"], bias["tail_errors"]["head"]
    (25.0, 75.0, 100.0)
    """
    scores_NC, target_N, counts = checked_predictions(scores_NC, target_N, class_counts)
    predicted_N = scores_NC.argmax(1)
    counted = ClassCounts.of(predicted_N, target_N, len(counts))
    groups = thirds(counts)
    return {
        "samples": len(target_N),
        "wrong": float(100 * (predicted_N != target_N).double().mean()),
        "true_share": group_shares(counted.images, groups),
        "predicted_share": group_shares(counted.predictions, groups),
        "recall": group_means(counted.recalls(), groups),
        "tail_errors": group_shares(tail_errors(predicted_N, target_N, counts), groups),
    }


def describe_bias(bias: TeacherBias) -> str:
    """`teacher_bias` as one plain sentence in which each claim is a number.

    >>> import torch
    >>> print(describe_bias(teacher_bias(torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 2]), [300, 50, 5])))
    The teacher is wrong on 25.0 % of 4 samples, predicts head classes for 75.0 % of them (true share 50.0 %) and tail \
classes for 0.0 % (true share 25.0 %), recalls 100.0 % of the head and 0.0 % of the tail, and 100.0 % of its errors \
on tail samples name a head class.
    """
    predicted, true, recall = bias["predicted_share"], bias["true_share"], bias["recall"]
    claims = [
        f"is wrong on {bias['wrong']:.1f} % of {bias['samples']:,} samples",
        f"predicts head classes for {predicted['head']:.1f} % of them (true share {true['head']:.1f} %) "
        f"and tail classes for {predicted['tail']:.1f} % (true share {true['tail']:.1f} %)",
    ]
    known = [f"{recall[name]:.1f} % of the {name}" for name in ("head", "tail") if recall[name] is not None]
    if known:
        claims.append(f"recalls {' and '.join(known)}")
    to_head = bias["tail_errors"]["head"]
    claims.append(
        "and makes 0 errors on tail samples"
        if to_head is None
        else f"and {to_head:.1f} % of its errors on tail samples name a head class"
    )
    return f"The teacher {', '.join(claims)}."
