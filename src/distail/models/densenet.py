"""DenseNet-BC-121 (Huang 2017) with a 3x3 stem for 32x32 images, as pytorch-cifar100 and DR-KD's code have it. [code]

DR-KD's notebook has a line for this network but runs torchvision's, which it starts from ImageNet; distail has no
weights of its own to start from. The configuration that names it (`cifar100-drkd-densenet121`) was never run here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distail.models.layers import Network, create_classifier, named, norm_relu

_GROWTH = 32
_BLOCKS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """The input, and `growth` new channels beside it."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        hidden = 4 * growth
        self.branch = nn.Sequential(
            *norm_relu(in_channels),
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            *norm_relu(hidden),
            nn.Conv2d(hidden, growth, 3, padding=1, bias=False),
        )

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return torch.cat([maps_NCHW, self.branch(maps_NCHW)], 1)


def _transition(channels: int) -> nn.Sequential:
    """Half the channels at half the resolution; no ReLU here [code], odd sizes are rounded up [ours]."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels // 2, 1, bias=False),
        nn.AvgPool2d(2, ceil_mode=True),
    )


def densenet121(*, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    channels = 2 * _GROWTH
    body = named(stem=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
    for number, layers in enumerate(_BLOCKS, start=1):
        stage = nn.Sequential()
        for _ in range(layers):
            stage.append(DenseLayer(channels, _GROWTH))
            channels += _GROWTH
        body.add_module(f"stage{number}", stage)
        if number < len(_BLOCKS):
            body.add_module(f"transition{number}", _transition(channels))
            channels //= 2
    body.add_module("activate", norm_relu(channels))
    return Network(body, create_classifier(classifier, channels, num_classes))


BUILDERS: dict[str, Callable[..., nn.Module]] = {"densenet121": densenet121}
