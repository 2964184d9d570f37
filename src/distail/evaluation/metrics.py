"""Every figure of a result, from stored logits and labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

import torch
from torch import Tensor

from distail.evaluation.calibration import expected_calibration_error
from distail.evaluation.groups import shots, thirds
from distail.evaluation.inputs import checked_predictions
from distail.evaluation.tally import Tally


def evaluate_predictions(logits_NC: Tensor, target_N: Tensor, class_counts: Sequence[int] | Tensor) -> dict[str, Any]:
    """All figures of one model on one test set, in percent.

    Args:
        logits_NC: (N, C) floating and finite.
        target_N: (N,) integer labels, 0 to C - 1.
        class_counts: (C,) training images of each class, at least 1; they decide the groups.

    Returns:
        ``top1``; ``balanced_accuracy`` (mean recall), ``macro_f1`` and ``worst_class`` (lowest recall), all three over
        the classes that have test images; ``ece`` (15 equal-width bins); ``per_class_recall`` (a list, None for a class
        without test images); ``groups.shots`` and ``groups.thirds`` (mean recall, None where a group has no class to
        measure). Plain floats, ready for JSON.

    Raises:
        DataError: shapes that do not match, nothing to evaluate, logits that are not finite, labels out of range.

    >>> figures = evaluate_predictions(torch.eye(3), torch.tensor([0, 1, 1]), [300, 50, 5])
    >>> figures["balanced_accuracy"], figures["per_class_recall"]
    (75.0, [100.0, 50.0, None])
    >>> figures["groups"]["shots"]
    {'many': 100.0, 'medium': 50.0, 'few': None}
    """
    logits_NC, target_N, counts = checked_predictions(logits_NC, target_N, class_counts)
    tally = Tally.of(logits_NC.argmax(1), target_N, len(counts))
    present_C = tally.images > 0
    f1_C = 200 * tally.right / (tally.images + tally.predictions)
    recalls = tally.recalls()
    recall_of_present = torch.tensor([recall for recall in recalls if recall is not None], dtype=torch.float64)
    return {
        "top1": float(100 * (tally.right.sum() / len(target_N))),
        "balanced_accuracy": float(recall_of_present.mean()),
        "macro_f1": float(f1_C[present_C].mean()),
        "worst_class": float(recall_of_present.min()),
        "ece": expected_calibration_error(logits_NC, target_N),
        "per_class_recall": recalls,
        "groups": {
            "shots": group_means(recalls, shots(counts)),
            "thirds": group_means(recalls, thirds(counts)),
        },
    }


def group_means(values: Sequence[float | None], groups: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """The mean of a per-class value in each group, over the classes that have one; None where no class has.

    >>> group_means([90.0, None, 30.0], {"head": (0, 1), "medium": (1,), "tail": (2,)})
    {'head': 90.0, 'medium': None, 'tail': 30.0}
    """
    known = {name: [v for v in (values[c] for c in classes) if v is not None] for name, classes in groups.items()}
    return {name: fsum(part) / len(part) if part else None for name, part in known.items()}
