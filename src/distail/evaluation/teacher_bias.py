"""What a teacher's predictions give the head and take from the tail, in numbers and in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from distail.evaluation.error_flow import tail_errors
from distail.evaluation.groups import group_shares, thirds
from distail.evaluation.inputs import checked_predictions
from distail.evaluation.metrics import group_means
from distail.evaluation.tally import Tally


def teacher_bias(scores_NC: Tensor, target_N: Tensor, class_counts: Sequence[int] | Tensor) -> dict[str, Any]:
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
    tally = Tally.of(predicted_N, target_N, len(counts))
    groups = thirds(counts)
    return {
        "samples": len(target_N),
        "wrong": float(100 * (predicted_N != target_N).double().mean()),
        "true_share": group_shares(tally.images, groups),
        "predicted_share": group_shares(tally.predictions, groups),
        "recall": group_means(tally.recalls(), groups),
        "tail_errors": group_shares(tail_errors(predicted_N, target_N, counts), groups),
    }


def describe_bias(bias: Mapping[str, Any]) -> str:
    """`teacher_bias` as one plain sentence in which each claim is a number.

    >>> import torch
    >>> print(describe_bias(teacher_bias(torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 2]), [300, 50, 5])))
    The teacher is wrong on 25.0 % of 4 images, predicts head classes for 75.0 % of them (true share 50.0 %) and tail \
classes for 0.0 % (true share 25.0 %), recalls 100.0 % of the head and 0.0 % of the tail, and 100.0 % of its errors \
on tail images name a head class.
    """
    predicted, true, recall = bias["predicted_share"], bias["true_share"], bias["recall"]
    claims = [
        f"is wrong on {bias['wrong']:.1f} % of {bias['samples']:,} images",
        f"predicts head classes for {predicted['head']:.1f} % of them (true share {true['head']:.1f} %) "
        f"and tail classes for {predicted['tail']:.1f} % (true share {true['tail']:.1f} %)",
    ]
    known = [f"{recall[name]:.1f} % of the {name}" for name in ("head", "tail") if recall[name] is not None]
    if known:
        claims.append(f"recalls {' and '.join(known)}")
    to_head = bias["tail_errors"]["head"]
    claims.append(
        "and makes 0 errors on tail images"
        if to_head is None
        else f"and {to_head:.1f} % of its errors on tail images name a head class"
    )
    return f"The teacher {', '.join(claims)}."
