"""In which number format a CPU trains a network faster: a rule from its structure, measured beforehand.

    python benchmarks/precision.py    # the measurement; its table is in benchmarks/precision.md

A timed step would know better, and choose otherwise on a busy machine: then the same configuration would not give the
same numbers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from distail.training.device import supports_fast_bf16

# Networks for small devices have 20 % and more, most others none.
_MOST_DEPTHWISE = 0.1


def faster_in_training(network: nn.Module, device: torch.device) -> str:
    """`bf16` where the hardware has it, but `fp32` on a CPU for networks of depthwise convolutions.

    Their gradients are slow in bf16. Looking at images is faster in bf16 for every network that was measured.

    >>> faster_in_training(nn.Conv2d(8, 8, 3, groups=8), torch.device("cpu"))
    'fp32'
    """
    if not supports_fast_bf16(device):
        return "fp32"
    return "fp32" if device.type == "cpu" and depthwise_share(network) > _MOST_DEPTHWISE else "bf16"


def depthwise_share(network: nn.Module) -> float:
    """The share of depthwise convolutions, of one channel a group, among convolutions and linear layers.

    >>> depthwise_share(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1)))
    0.5
    """
    layers = [module for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)]
    depthwise = [layer for layer in layers if isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels]
    return len(depthwise) / max(1, len(layers))
