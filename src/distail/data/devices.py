"""To the device that trains, without making the host wait for it."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(value: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device: from the CPU to a GPU through pinned memory, so that the host does not wait.

    >>> moved(torch.ones(2), "cpu")
    tensor([1., 1.])
    """
    if torch.device(device).type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
