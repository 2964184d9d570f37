"""Does a confidence of 80 % mean right in 80 of 100 cases: reliability bins and the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distail.evaluation.checks import by_rows

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence lies in (lower, upper]; shares between 0 and 1, None where the bin is empty."""

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def top_confidence(logits_NC: Tensor) -> Tensor:
    """The softmax probability of each row's largest logit, float64 (N,)."""

    def confidence(rows: Tensor) -> Tensor:
        rows = rows.double()
        return torch.exp(rows.amax(1) - rows.logsumexp(1))

    return by_rows(confidence, logits_NC, dtype=torch.float64)


def reliability_bins(logits_NC: Tensor, target_N: Tensor, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy in equal-width bins of the top confidence (Guo et al. 2017, equation 2).

    Args:
        logits_NC: (N, C), N at least 1, finite.
        target_N: (N,) int64.
        bins: how many bins of equal width between 0 and 1.

    >>> bins = reliability_bins(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))
    >>> bins[-1].count, bins[-1].accuracy
    (2, 0.5)
    """
    return bins_of_confidence(top_confidence(logits_NC), logits_NC.argmax(1) == target_N, bins)


def bins_of_confidence(confidence_N: Tensor, correct_N: Tensor, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """`reliability_bins` of confidences (N,) float64 and of whether each was right (N,) bool; N may be 0."""
    correct_N = correct_N.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    bin_N = (torch.bucketize(confidence_N, edges) - 1).clamp(0, bins - 1)
    count = torch.bincount(bin_N, minlength=bins).tolist()
    confidence = torch.bincount(bin_N, confidence_N, minlength=bins).tolist()
    accuracy = torch.bincount(bin_N, correct_N, minlength=bins).tolist()
    return tuple(
        ReliabilityBin(
            lower=float(edges[i]),
            upper=float(edges[i + 1]),
            count=count[i],
            confidence=confidence[i] / count[i] if count[i] else None,
            accuracy=accuracy[i] / count[i] if count[i] else None,
        )
        for i in range(bins)
    )


def expected_calibration_error(logits_NC: Tensor, target_N: Tensor, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their samples, in percent.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    >>> round(expected_calibration_error(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])), 2)
    49.99
    """
    return calibration_gap(reliability_bins(logits_NC, target_N, bins))


def calibration_gap(bins: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error of reliability bins that hold at least one prediction, in percent."""
    total = sum(item.count for item in bins)
    return 100 * sum(
        item.count / total * abs(item.accuracy - item.confidence)
        for item in bins
        if item.accuracy is not None and item.confidence is not None
    )
