"""Average precision of each class: how far up its samples stand among all, sorted by the class's score.

Shapes: N samples, C classes, B resampled test sets, E distinct scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


class Ranking:
    """One class's samples sorted by score, so that its average precision is quick to know for any weights.

    ``AP = sum_e (R_e - R_(e-1)) P_e`` over distinct scores e, from the highest: precision P and recall R of all samples
    that score as high, not interpolated, as scikit-learn's `average_precision_score`.

    >>> ranking = Ranking(np.array([0.9, 0.1, 0.4]), np.array([True, True, False]))
    >>> ranking.average_precision(np.ones((3, 1))).round(4)
    array([0.8333])
    """

    def __init__(self, score_N: NDArray[np.float32], has_N: NDArray[np.bool_]) -> None:
        self.order_N = np.argsort(-score_N, kind="stable")
        sorted_N = score_N[self.order_N]
        self.last_E = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
        self.has_N1 = has_N[self.order_N, None]

    def average_precision(self, weights_NB: Array) -> Array:
        """In 0 to 1, (B,); nan where no sample of the class has a weight."""
        sorted_NB = weights_NB[self.order_N]
        found_EB = np.cumsum(sorted_NB * self.has_N1, axis=0)[self.last_E]
        among_EB = np.cumsum(sorted_NB, axis=0)[self.last_E]
        gained_EB = np.diff(found_EB, axis=0, prepend=0.0)
        total_B = found_EB[-1]
        with np.errstate(invalid="ignore"):
            precise_B: Array = (gained_EB * found_EB / np.maximum(among_EB, 1e-300)).sum(axis=0) / total_B
        return precise_B


def average_precisions_of_parts(parts: Sequence[tuple[Tensor, Tensor]]) -> list[float | None]:
    """The same of parts, logits and target (N, C) each, that were judged by a network each: of each class the mean.

    Weighted by the samples that have the class. Scores of different networks cannot be ranked together: a constant of
    one of them would change the ranks.

    >>> import torch
    >>> parts = [(torch.tensor([[2.0], [1.0]]) + shift, torch.tensor([[True], [False]])) for shift in (0.0, 9.0)]
    >>> average_precisions_of_parts(parts)
    [100.0]
    """
    found = zip(*(average_precisions(*part) for part in parts), strict=True)
    numbers = zip(*(target.sum(0).tolist() for _, target in parts), strict=True)
    return [_mean(own, weights) for own, weights in zip(found, numbers, strict=True)]


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in known)
    return fsum(value * weight for value, weight in known) / total if total else None


def average_precisions(logits_NC: Tensor, target_NC: Tensor) -> list[float | None]:
    """Percent, of each class; None for a class that no sample has, of which no ranking is right or wrong.

    Args:
        logits_NC: (N, C) scores.
        target_NC: (N, C) bool.

    >>> import torch
    >>> logits, target = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[True, False], [False, False]])
    >>> average_precisions(logits, target)
    [100.0, None]
    """
    once_N1 = np.ones((len(logits_NC), 1))
    found: list[float | None] = []
    for score_N, has_N in zip(logits_NC.numpy().T, target_NC.numpy().T, strict=True):
        known = bool(has_N.any())
        found.append(100 * float(Ranking(score_N, has_N).average_precision(once_N1)[0]) if known else None)
    return found
