"""Every figure of a result, from stored logits and labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import torch
from torch import Tensor

from distail.errors import DataError
from distail.evaluation.calibration import expected_calibration_error
from distail.evaluation.checks import checked_predictions, rows_at_once
from distail.evaluation.groups import shots, thirds

QUARTERS = ("most", "second", "third", "least")


@dataclass(frozen=True)
class ClassCounts:
    """Whole numbers a class as float64 (C,): images that have the label, that are given it, and both."""

    images: Tensor
    predictions: Tensor
    right: Tensor

    @classmethod
    def of(cls, predicted_N: Tensor, target_N: Tensor, classes: int) -> ClassCounts:
        """Count predicted classes and labels, (N,) int64 each.

        >>> tally = ClassCounts.of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 3)
        >>> tally.recalls(), tally.precisions()
        ([100.0, 50.0, None], [50.0, 100.0, None])
        """
        parts = (target_N, predicted_N, target_N[predicted_N == target_N])
        return cls(*(torch.bincount(part, minlength=classes).double() for part in parts))

    def recalls(self) -> list[float | None]:
        """Percent of each class's images that are given their label; None for a class without images."""
        return _percent(self.right, self.images)

    def precisions(self) -> list[float | None]:
        """Percent of each class's predictions that are right; None for a class that is never predicted."""
        return _percent(self.right, self.predictions)


def _percent(part_C: Tensor, whole_C: Tensor) -> list[float | None]:
    shares = (100 * part_C / whole_C).tolist()
    return [share if whole else None for share, whole in zip(shares, whole_C.tolist(), strict=True)]


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
    tally = ClassCounts.of(logits_NC.argmax(1), target_N, len(counts))
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


def mean_probability(logits_NC: Tensor) -> Tensor:
    """The teacher's mean probability of each class over a data set: (N, C) logits to (C,) float64 summing to 1."""
    total_C = torch.zeros(logits_NC.shape[1], dtype=torch.float64)
    for rows in torch.split(logits_NC.detach().cpu(), rows_at_once(logits_NC)):
        total_C += rows.double().softmax(1).sum(0)
    return total_C / len(logits_NC)


def recall_by_quarter(
    recall_per_class: Sequence[float | None], mean_probability_per_class: Sequence[float] | Tensor
) -> dict[str, float | None]:
    """Mean recall in four quarters of the classes, from the most to the least favoured by the teacher.

    IPWD (arXiv 2210.12787), Table 1 [paper]: plain distillation lifts the most favoured quarter far more than the
    least; a repair closes that gap. Classes are ranked by the teacher's mean probability, descending, ties by index,
    and cut at round(i * C / 4) [ours].

    Args:
        recall_per_class: (C,), percent, None for a class without test images (left out of its quarter's mean).
        mean_probability_per_class: (C,), the teacher's, as `mean_probability` computes it.

    Returns:
        ``most``, ``second``, ``third``, ``least``: percent, None where a quarter has no class to measure.

    Raises:
        DataError: lengths that differ, or probabilities that are not finite.

    >>> recall_by_quarter([10.0, 20.0, 30.0, 40.0], [0.1, 0.2, 0.3, 0.4])
    {'most': 40.0, 'second': 30.0, 'third': 20.0, 'least': 10.0}
    """
    favour_C = torch.as_tensor(mean_probability_per_class).detach().cpu().double()
    if favour_C.shape != (len(recall_per_class),):
        raise DataError(
            f"got recalls of {len(recall_per_class)} classes and mean probabilities of shape {tuple(favour_C.shape)}; "
            "expected one of each for every class."
        )
    if not favour_C.isfinite().all():
        raise DataError("the teacher's mean probabilities are not all finite; expected numbers between 0 and 1.")
    ranked = torch.argsort(favour_C, descending=True, stable=True).tolist()
    cuts = [round(i * len(ranked) / 4) for i in range(5)]
    quarters = {name: ranked[cuts[i] : cuts[i + 1]] for i, name in enumerate(QUARTERS)}
    return group_means(recall_per_class, quarters)
