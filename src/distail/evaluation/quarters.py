"""Recall of the classes a teacher favours against those it neglects (IPWD, Table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.errors import DataError
from distail.evaluation.inputs import rows_at_once
from distail.evaluation.metrics import group_means

QUARTERS = ("most", "second", "third", "least")


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
