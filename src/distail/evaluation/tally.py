"""How often each class occurs, is predicted, and is right: what recall, precision and shares are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tally:
    """Whole numbers a class as float64 (C,): images that have the label, that are given it, and both."""

    images: Tensor
    predictions: Tensor
    right: Tensor

    @classmethod
    def of(cls, predicted_N: Tensor, target_N: Tensor, classes: int) -> Tally:
        """Count predicted classes and labels, (N,) int64 each.

        >>> tally = Tally.of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 3)
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
