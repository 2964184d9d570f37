"""Linear layers that exist only in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def project(layer: nn.Linear, features_BD: Tensor) -> Tensor:
    """The layer in at least float32, whichever of features and layer is narrower: losses follow.

    >>> project(nn.Linear(4, 2).double(), torch.zeros(3, 4, dtype=torch.bfloat16)).dtype
    torch.float64
    """
    dtype = torch.promote_types(torch.promote_types(features_BD.dtype, layer.weight.dtype), torch.float32)
    return linear(features_BD.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))
