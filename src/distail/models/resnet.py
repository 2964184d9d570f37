"""Residual networks for small images: of the CIFAR literature (He 2016), ResNet-18 and -50, and ResNeXt-29 (Xie 2017).

`resnet18` and `resnet50` are the four-stage networks of ImageNet with a 3x3 stem and no pooling, as they are used on
32x32 images. `resnext29` has 8 groups of 64 channels, as in DR-KD's code [code]; the configuration that names it
(`cifar100-drkd-resnext29`) was never run here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from distail.errors import ModelError, unknown_name
from distail.models.layers import (
    Network,
    ResidualBlock,
    conv_norm,
    conv_norm_relu,
    create_classifier,
    kaiming_fan_in,
    kaiming_fan_out,
    named,
)

DEFAULT_SHORTCUT = "conv"
_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)
_EXPANSION = 4
_GROUPS = 8

Part = Callable[[int, int, int], nn.Module]
"""A part of a block, from its input channels, output channels and stride."""


class PadShortcut(nn.Module):
    """Parameter-free shortcut (option A of He 2016): every stride-th pixel, new channels zero, half on each side."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        kept_NCHW = maps_NCHW[:, :, :: self.stride, :: self.stride]
        return F.pad(kept_NCHW, (0, 0, 0, 0, self.before, self.after))


def conv_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Projection shortcut (option B of He 2016): a strided 1x1 convolution and batch normalization."""
    return conv_norm(in_channels, out_channels, 1, stride)


# Shortcut and initialization: the two lines of published code differ in both, and numbers compare within a line only.
LINES: dict[str, tuple[Part, Callable[[nn.Module], None]]] = {
    "conv": (conv_shortcut, kaiming_fan_out),
    "pad": (PadShortcut, kaiming_fan_in),
}


def basic_branch(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions."""
    return nn.Sequential(
        *conv_norm_relu(in_channels, out_channels, 3, stride), *conv_norm(out_channels, out_channels, 3)
    )


def bottleneck_branch(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A 3x3 convolution between two 1x1, at a quarter of the width."""
    hidden = out_channels // _EXPANSION
    return nn.Sequential(
        *conv_norm_relu(in_channels, hidden, 1),
        *conv_norm_relu(hidden, hidden, 3, stride),
        *conv_norm(hidden, out_channels, 1),
    )


def grouped_branch(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A 3x3 convolution of 8 groups between two 1x1, at twice the width."""
    hidden = _GROUPS * out_channels // 4
    return nn.Sequential(
        *conv_norm_relu(in_channels, hidden, 1),
        *conv_norm_relu(hidden, hidden, 3, stride, groups=_GROUPS),
        *conv_norm(hidden, out_channels, 1),
    )


def cifar_resnet(
    depth: int,
    widths: tuple[int, ...],
    *,
    num_classes: int,
    in_channels: int = 3,
    shortcut: str = DEFAULT_SHORTCUT,
    classifier: str = "linear",
) -> Network:
    """Depth 6n + 2: a stem `widths[0]` wide and a stage of n basic blocks for each further width."""
    if shortcut not in LINES:
        raise ModelError(unknown_name("shortcut", shortcut, LINES))
    make_shortcut, initialize = LINES[shortcut]
    stem, *stages = widths
    network = _network(
        stem, stages, [(depth - 2) // 6] * 3, basic_branch, make_shortcut, num_classes, in_channels, classifier
    )
    initialize(network)
    return network


def large_resnet(
    branch: Part,
    expansion: int,
    blocks: Sequence[int],
    *,
    num_classes: int,
    in_channels: int = 3,
    classifier: str = "linear",
) -> Network:
    """Stages of width 64, 128, 256 and 512, each `expansion` times as wide outside its branches."""
    widths = [expansion * width for width in (64, 128, 256, 512)]
    network = _network(64, widths, blocks, branch, conv_shortcut, num_classes, in_channels, classifier)
    kaiming_fan_out(network)
    return network


def resnext29(*, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    """Three stages of three blocks, 256, 512 and 1024 wide outside their branches."""
    widths = [256, 512, 1024]
    network = _network(64, widths, [3, 3, 3], grouped_branch, conv_shortcut, num_classes, in_channels, classifier)
    kaiming_fan_out(network)
    if isinstance(network.classifier, nn.Linear):
        nn.init.kaiming_normal_(network.classifier.weight)
        nn.init.zeros_(network.classifier.bias)
    return network


def _network(
    stem: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    branch: Part,
    shortcut: Part,
    num_classes: int,
    in_channels: int,
    classifier: str,
) -> Network:
    """A 3x3 stem and stages of residual blocks, of which all but the first halve the resolution."""
    body = named(stem=conv_norm_relu(in_channels, stem, 3))
    channels = stem
    for number, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        stage = nn.Sequential()
        for position in range(count):
            stride = 2 if number > 1 and position == 0 else 1
            changes_shape = stride != 1 or channels != width
            beside = shortcut(channels, width, stride) if changes_shape else None
            stage.append(ResidualBlock(branch(channels, width, stride), beside))
            channels = width
        body.add_module(f"stage{number}", stage)
    return Network(body, create_classifier(classifier, channels, num_classes))


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(cifar_resnet, depth, _NARROW) for depth in (8, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(cifar_resnet, depth, _WIDE) for depth in (8, 32)},
    "resnet18": partial(large_resnet, basic_branch, 1, (2, 2, 2, 2)),
    "resnet50": partial(large_resnet, bottleneck_branch, _EXPANSION, (3, 4, 6, 3)),
    "resnext29": resnext29,
}
