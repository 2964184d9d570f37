"""How large a network is, and how much work one image is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distail.inputs import Inputs, call, each_tensor
from distail.torch_utils import eval_mode


def count_parameters(model: nn.Module) -> int:
    """All weights and biases, trained or frozen; shared ones once.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, image_shape: Sequence[int] | Inputs) -> int:
    """Multiply-accumulates of convolutions and matrix products for one example in eval mode.

    `image_shape` is that of an example, such as (channels, height, width); or the inputs (1, ...) of one, for a network
    that wants more than one tensor of floats. One forward pass, on zeros or on these; the modes of all
    modules are as before afterwards.

    >>> count_macs(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10)), (3, 4, 4))
    4736
    """
    inputs = image_shape if isinstance(image_shape, Tensor | dict) else torch.zeros(1, *image_shape)
    example = next(model.parameters(), torch.zeros(()))

    def as_its_own(tensor: Tensor) -> Tensor:
        return tensor.to(example.device, example.dtype if tensor.is_floating_point() else tensor.dtype)

    counter = FlopCounterMode(display=False)
    # Attention in one piece is counted on some devices and not on others; in its parts everywhere.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), eval_mode(model), sdpa_kernel(SDPBackend.MATH), counter:
            call(model, each_tensor(as_its_own, inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2
