"""A tensor that belongs to a module but keeps its own dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Exact(nn.Module):
    """A buffer that follows its module to another device, but keeps its dtype under `.half()` or `.to(dtype)`.

    Casting a float64 constant with the module would lose digits that `.float()` afterwards cannot bring back.

    >>> exact = Exact(torch.tensor([0.1], dtype=torch.float64)).half()
    >>> exact.value.dtype, exact(torch.zeros(1)).dtype
    (torch.float64, torch.float32)
    """

    value: Tensor

    def __init__(self, value: Tensor, *, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=persistent)

    def forward(self, like: Tensor) -> Tensor:
        """The value in the dtype of a tensor that it is used with."""
        return self.value.to(like.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Exact:
        device = fn(torch.empty(0, device=self.value.device)).device
        # Apple's accelerator has no float64: there such a value lives in float32
        narrowed = device.type == "mps" and self.value.dtype == torch.float64
        self.value = (self.value.float() if narrowed else self.value).to(device)
        return self
