"""Pieces that several networks share."""

from __future__ import annotations

from torch import Tensor, nn


def conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, "same" padding, then batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """`conv_norm` and a ReLU, in place because nobody else reads the normalised map."""
    return nn.Sequential(*conv_norm(in_channels, out_channels, kernel, stride, groups), nn.ReLU(inplace=True))


def global_average(images_NCHW: Tensor) -> Tensor:
    """Mean over space, (N, C, H, W) to (N, C): what makes a network take images of any size."""
    return images_NCHW.mean((2, 3))
