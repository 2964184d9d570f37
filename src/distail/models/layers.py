"""Pieces that several networks share."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F


def named(**modules: nn.Module) -> nn.Sequential:
    """A sequence whose parts carry names, so that the keys of stored weights can be read."""
    return nn.Sequential(OrderedDict(modules))


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """Convolution with "same" padding, then batch normalisation.

    Before that a bias does nothing: some networks have one for their published parameter counts.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias),
        nn.BatchNorm2d(out_channels),
    )


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """`conv_norm` and a ReLU, in place because nobody else reads the normalised map."""
    convolved = conv_norm(in_channels, out_channels, kernel, stride, groups, bias=bias)
    return nn.Sequential(*convolved, nn.ReLU(inplace=True))


def conv_norm_relu6(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution with a bias, batch normalisation, and a ReLU that ends at 6."""
    convolved = conv_norm(in_channels, out_channels, kernel, stride, groups, bias=True)
    return nn.Sequential(*convolved, nn.ReLU6(inplace=True))


def norm_relu(channels: int) -> nn.Sequential:
    """Batch normalisation and a ReLU, for networks that normalise before each convolution."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """relu(branch(x) + shortcut(x)); the shortcut is the identity unless one is given."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return F.relu(self.branch(maps_NCHW) + self.shortcut(maps_NCHW), inplace=True)


def kaiming_fan_out(network: nn.Module) -> None:
    """Kaiming normal over the fan out for convolutions, as RepDistiller and mdistiller start. [code]"""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kaiming_fan_in(network: nn.Module) -> None:
    """Kaiming normal over the fan in for convolutions and a linear classifier, as LDAM and BKD start. [code]"""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


def small_linear(network: nn.Module) -> None:
    """Nearly uniform first predictions: linear weights of deviation 0.01, biases zero (VGG, MobileNetV2). [code]"""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
