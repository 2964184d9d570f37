"""Outputs that are probabilities where logits belong. Shapes: N samples, C classes."""

from __future__ import annotations

import torch
from torch import Tensor

from distail.evaluation.checks import rows_at_once

_TOLERANCE = 0.05  # of rounded probabilities
# Logits that all lie between 0 and 1 are rare, but that few of them do is not.
_FEWEST, _LEAST_SPREAD = 64, 0.5
_LAYERS = {"probabilities": "softmax", "percentages": "softmax", "sigmoids": "sigmoid"}
SIGNS = {
    "probabilities": "every row is 0 or above and sums to 1",
    "percentages": "every row is 0 or above and sums to 100",
    "sigmoids": "all lie between 0 and 1",
}


def kind_of_probabilities(logits_NC: Tensor) -> str | None:
    """`probabilities`, `percentages` (rows that sum to 100) or `sigmoids` (between 0 and 1); None for logits.

    >>> logits = torch.linspace(-6, 9, 100).view(10, 10)
    >>> [kind_of_probabilities(made) for made in (logits, logits.softmax(1), 100 * logits.softmax(1), logits.sigmoid())]
    [None, 'probabilities', 'percentages', 'sigmoids']
    """
    if logits_NC.ndim != 2 or logits_NC.shape[1] < 2 or not len(logits_NC) or not logits_NC.is_floating_point():
        return None
    blocks = torch.split(logits_NC, rows_at_once(logits_NC))
    for kind, total in (("probabilities", 1), ("percentages", 100)):
        if all(_sum_to(total, block_RC) for block_RC in blocks):
            return kind
    least, most = (float(edge) for edge in torch.aminmax(logits_NC))
    wide = most - least >= _LEAST_SPREAD and logits_NC.numel() >= _FEWEST
    return "sigmoids" if wide and least >= 0 and most <= 1 else None


def probabilities_sentence(whose: str, kind: str) -> str:
    """What a user should know of a network that gives them, and how it is put right."""
    return (
        f"{whose} returns {kind} ({SIGNS[kind]}) instead of logits: targets and confidences are nearly "
        f"uniform. Expected logits: remove its last {_LAYERS[kind]}"
    )


def _sum_to(total: int, logits_RC: Tensor) -> bool:
    sums_R = logits_RC.sum(1, dtype=torch.float64)
    return bool((logits_RC >= 0).all()) and bool(((sums_R - total).abs() < _TOLERANCE * total).all())
