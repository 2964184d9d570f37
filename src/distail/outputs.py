"""What a network tells a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

SINGLE_LABEL, MULTI_LABEL = "single_label", "multi_label"
"""What `data.targets` is: labels (B,) int64, and logits that are a softmax's; or labels (B, C) bool, and each logit the
log odds of one class."""


@dataclass(frozen=True)
class Outputs:
    """Logits (B, C) and, where a method needs them, penultimate features (B, D); any floating dtype.

    >>> import torch
    >>> Outputs(logits=torch.zeros(2, 10)).features is None
    True
    """

    logits: Tensor
    features: Tensor | None = None


def logits_in(output: object) -> object:
    """What stands for the logits in what a network gives: its `.logits`, or the first of a tuple, or itself.

    >>> logits_in(("logits", "auxiliary logits")), logits_in({"loss": 0, "logits": "logits"}), logits_in("logits")
    ('logits', 'logits', 'logits')
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if isinstance(output, tuple | list) and output and not hasattr(output, "logits"):
        return output[0]
    return getattr(output, "logits", output)
