"""The K largest probabilities of a row as probabilities of all classes. Shapes: B samples, K largest, C classes."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float32).tiny
"""What a probability of 0 counts as, whose logarithm no loss could use."""


def expand_top_k(log_values_BK: Tensor, indices_BK: Tensor, rest_shares_C: Tensor) -> Tensor:
    """Log probabilities (B, C) float32 of all classes from those of the K largest: ``log p``, which are logits too.

    What the K leave of 1 is spread over the other classes by their share:
    ``p_c = (1 - sum_k p_k) * s_c / sum of s over the classes that are not among the K``. Computed in float64, so that
    the rest of a teacher that is nearly sure is no rounding error. [ours]

    Args:
        log_values_BK: (B, K) log probabilities, whose exponentials sum to at most 1 a row.
        indices_BK: (B, K) int64, the class of each, all different in a row.
        rest_shares_C: (C,) above 0: equal for an even spread, or training images per class.

    >>> half_and_quarter = torch.tensor([[0.5, 0.25]]).log()
    >>> expand_top_k(half_and_quarter, torch.tensor([[2, 0]]), torch.ones(4)).exp()
    tensor([[0.2500, 0.1250, 0.5000, 0.1250]])
    """
    values_BK = log_values_BK.double()
    rest_B1 = (1 - values_BK.exp().sum(1, keepdim=True)).clamp_min(SMALLEST)
    shares_C = rest_shares_C.double()
    left_B1 = (shares_C.sum() - shares_C[indices_BK].sum(1, keepdim=True)).clamp_min(SMALLEST)
    # One logarithm a row and one per class, not one for each of the B times C numbers.
    spread_BC = (rest_B1 / left_B1).log().float() + shares_C.log().float()
    return spread_BC.scatter_(1, indices_BK, values_BK.float())
