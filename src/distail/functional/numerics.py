"""What every formula shares: the dtype that it is computed in, and a few pieces of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

FLOOR = 1e-6  # the least denominator of a ratio of losses or of a standard deviation


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half and bfloat16 become float32; float32 and float64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def log_probabilities(logits_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(logits / temperature)`` over classes, in at least float32."""
    logits_BC = at_least_float32(logits_BC)
    return log_softmax(logits_BC if temperature == 1.0 else logits_BC / temperature, dim=1)


def of_target(values_BC: Tensor, target_B: Tensor) -> Tensor:
    """The entry of each sample's label: (B, C) to (B,)."""
    return values_BC.gather(1, target_B[:, None]).squeeze(1)


def is_label(target_B: Tensor, num_classes: int) -> Tensor:
    """Where each sample's label is: (B,) to a boolean (B, C)."""
    return target_B[:, None] == torch.arange(num_classes, device=target_B.device)
