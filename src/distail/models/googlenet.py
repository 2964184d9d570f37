"""GoogLeNet (Szegedy 2015) with batch normalization and one 3x3 stem for 32x32 images, as DR-KD's code has it. [code]

That code, and pytorch-cifar100, whence it came, pass a layer's width as the `eps` of one normalization in each block
(`BatchNorm2d(n5x5, n5x5)`); here it is the usual 1e-5 [ours]. Another normalization follows at once, so little of it
would reach the output.

The configuration that names it (`cifar100-drkd-googlenet`) was never run here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distail.models.layers import Network, create_classifier, named

_STEM = 192
_DROPOUT = 0.4


class Widths(NamedTuple):
    """Output channels of an Inception block's four branches, and of the 1x1 convolutions before the two in the middle.

    The branches are a point (1x1), a small (3x3) and a large convolution (two 3x3, where the paper has one 5x5), and
    pooling.
    """

    point: int
    before_small: int
    small: int
    before_large: int
    large: int
    pooled: int

    @property
    def total(self) -> int:
        return self.point + self.small + self.large + self.pooled


_STAGES = (
    (Widths(64, 96, 128, 16, 32, 32), Widths(128, 128, 192, 32, 96, 64)),
    (
        Widths(192, 96, 208, 16, 48, 64),
        Widths(160, 112, 224, 24, 64, 64),
        Widths(128, 128, 256, 24, 64, 64),
        Widths(112, 144, 288, 32, 64, 64),
        Widths(256, 160, 320, 32, 128, 128),
    ),
    (Widths(256, 160, 320, 32, 128, 128), Widths(384, 192, 384, 48, 128, 128)),
)


def _convolve(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    # The bias does nothing before batch normalization; it is kept for the published parameter counts.
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class Inception(nn.Module):
    """Four views of the same maps, side by side."""

    def __init__(self, in_channels: int, widths: Widths) -> None:
        super().__init__()
        self.point = _convolve(in_channels, widths.point, 1)
        self.small = nn.Sequential(
            *_convolve(in_channels, widths.before_small, 1), *_convolve(widths.before_small, widths.small, 3)
        )
        self.large = nn.Sequential(
            *_convolve(in_channels, widths.before_large, 1),
            *_convolve(widths.before_large, widths.large, 3),
            *_convolve(widths.large, widths.large, 3),
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), *_convolve(in_channels, widths.pooled, 1))

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return torch.cat([branch(maps_NCHW) for branch in (self.point, self.small, self.large, self.pooled)], 1)


def googlenet(*, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    channels = _STEM
    body = named(stem=_convolve(in_channels, channels, 3))
    for number, blocks in enumerate(_STAGES, start=1):
        stage = nn.Sequential()
        if number > 1:
            stage.append(nn.MaxPool2d(3, 2, padding=1))
        for widths in blocks:
            stage.append(Inception(channels, widths))
            channels = widths.total
        body.add_module(f"stage{number}", stage)
    # Dropping whole maps before the mean over space is dropping features after it.
    body.add_module("dropout", nn.Dropout2d(_DROPOUT))
    return Network(body, create_classifier(classifier, channels, num_classes))


BUILDERS: dict[str, Callable[..., nn.Module]] = {"googlenet": googlenet}
