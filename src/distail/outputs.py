"""What a network tells a method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Logits (B, C) and, where a method needs them, penultimate features (B, D); any floating dtype.

    >>> import torch
    >>> Outputs(logits=torch.zeros(2, 10)).features is None
    True
    """

    logits: Tensor
    features: Tensor | None = None
