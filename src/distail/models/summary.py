"""How large a network is, and how much work one image is."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distail.torch_utils import eval_mode


def count_parameters(model: nn.Module) -> int:
    """All weights and biases, trained or frozen; shared ones once.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image (channels, height, width) in eval mode.

    One forward pass on zeros; the modes of all modules are as before afterwards.

    >>> count_macs(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10)), (3, 4, 4))
    4736
    """
    example = next(model.parameters(), torch.zeros(()))
    images_NCHW = torch.zeros((1, *image_shape), device=example.device, dtype=example.dtype)
    counter = FlopCounterMode(display=False)
    # Attention in one piece is counted on some devices and not on others; in its parts everywhere.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), eval_mode(model), sdpa_kernel(SDPBackend.MATH), counter:
            model(images_NCHW)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2
