"""A tensor that belongs to a module but keeps its own dtype.

Shapes: B batch, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class FixedDtypeBuffer(nn.Module):
    """A buffer that follows its module to another device, but keeps its dtype under `.half()` or `.to(dtype)`.

    A stored constant must be the one that this module was made with, so that a state of other class counts or another
    beta is refused by `load_state_dict`; what is `learned` is taken as it is.

    Casting a float64 constant with the module would lose digits that `.float()` afterwards cannot bring back.

    >>> exact = FixedDtypeBuffer(torch.tensor([0.1], dtype=torch.float64)).half()
    >>> exact.value.dtype, exact(torch.zeros(1)).dtype
    (torch.float64, torch.float32)
    """

    value: Tensor

    def __init__(self, value: Tensor, *, persistent: bool = True, learned: bool = False) -> None:
        super().__init__()
        self.learned = learned
        self.register_buffer("value", value, persistent=persistent)

    def forward(self, like: Tensor) -> Tensor:
        """The value in the dtype of a tensor that it is used with."""
        return self.value.to(like.dtype)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        stored = state_dict.get(prefix + "value")
        if isinstance(stored, Tensor) and stored.shape == self.value.shape and not self.learned:
            own = self.value.to("cpu", torch.float64)
            # Another machine's mathematics may differ in the last digits, another accelerator's in all beyond float32.
            if not torch.allclose(stored.to("cpu", torch.float64), own, rtol=1e-5, atol=1e-12):
                error_msgs.append(
                    f"{prefix.rstrip('.')} does not match this method: the state is of other class "
                    "counts, or of other parameters"
                )
                return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FixedDtypeBuffer:
        device = fn(torch.empty(0, device=self.value.device)).device
        # Apple's accelerator has no float64: there such a value lives in float32
        narrowed = device.type == "mps" and self.value.dtype == torch.float64
        self.value = (self.value.float() if narrowed else self.value).to(device)
        return self


def project(layer: nn.Linear, features_BD: Tensor) -> Tensor:
    """The layer in at least float32, whichever of features and layer is narrower: losses follow.

    >>> project(nn.Linear(4, 2).double(), torch.zeros(3, 4, dtype=torch.bfloat16)).dtype
    torch.float64
    """
    dtype = torch.promote_types(torch.promote_types(features_BD.dtype, layer.weight.dtype), torch.float32)
    return linear(features_BD.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))
