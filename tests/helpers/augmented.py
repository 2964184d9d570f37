"""What the batches do to images, in two plain steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.data.augment import Draws, apply_named
from distail.data.normalize import Normalize


def augmented(images: Tensor, draws: Draws) -> Tensor:
    return apply_named(images, draws, draws.names) if len(images) else images


def normalized(
    images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    return Normalize(mean, std)(images, dtype)
