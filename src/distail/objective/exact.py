"""A tensor that belongs to a module but keeps its own dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Exact(nn.Module):
    """A constant that follows its module to another device, but stays float64 under `.half()` or `.bfloat16()`.

    Casting it with the module would lose digits that `.float()` afterwards cannot bring back.

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
        # Apple's accelerator has no float64; there the value is kept in float32
        dtype = torch.float32 if device.type == "mps" and self.value.dtype == torch.float64 else self.value.dtype
        if self.value.is_meta and device.type != "meta":
            self.value = torch.empty_like(self.value, device=device)
        self.value = self.value.to(dtype).to(device)
        return self
