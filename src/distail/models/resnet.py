"""The ResNets of the CIFAR literature: three stages of basic blocks, depth 6n + 2 (He 2016)."""

from __future__ import annotations

from collections.abc import Callable
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

_GROUPS = 8
_STEM = 64
_STAGES = ((256, 1), (512, 2), (1024, 2))  # width outside the branches, stride of the first block
_BLOCKS = 3
DEFAULT_SHORTCUT = "conv"


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
LINES: dict[str, tuple[Callable[[int, int, int], nn.Module], Callable[[nn.Module], None]]] = {
    "conv": (conv_shortcut, kaiming_fan_out),
    "pad": (PadShortcut, kaiming_fan_in),
}


def cifar_resnet(
    depth: int,
    widths: tuple[int, ...],
    *,
    num_classes: int,
    in_channels: int = 3,
    shortcut: str = DEFAULT_SHORTCUT,
    classifier: str = "linear",
) -> Network:
    """A stem ``widths[0]`` wide and a stage for each further width; the first stage keeps the resolution."""
    if shortcut not in LINES:
        raise ModelError(unknown_name("shortcut", shortcut, LINES))
    make_shortcut, initialize = LINES[shortcut]
    channels, *stage_widths = widths
    body = named(stem=conv_norm_relu(in_channels, channels, 3))
    for number, width in enumerate(stage_widths, start=1):
        stage = nn.Sequential()
        for position in range((depth - 2) // 6):
            stride = 2 if number > 1 and position == 0 else 1
            branch = nn.Sequential(*conv_norm_relu(channels, width, 3, stride), *conv_norm(width, width, 3))
            changes_shape = stride != 1 or channels != width
            stage.append(ResidualBlock(branch, make_shortcut(channels, width, stride) if changes_shape else None))
            channels = width
        body.add_module(f"stage{number}", stage)
    network = Network(body, create_classifier(classifier, channels, num_classes))
    initialize(network)
    return network


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)


def basic_branch(in_channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*conv_norm_relu(in_channels, width, 3, stride), *conv_norm(width, width, 3))


def bottleneck_branch(in_channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_norm_relu(in_channels, width, 1),
        *conv_norm_relu(width, width, 3, stride),
        *conv_norm(width, 4 * width, 1),
    )


def large_resnet(
    branch: Callable[[int, int, int], nn.Module],
    expansion: int,
    blocks: tuple[int, int, int, int],
    *,
    num_classes: int,
    in_channels: int = 3,
    classifier: str = "linear",
) -> Network:
    """Stages of width 64, 128, 256 and 512, each ``expansion`` times as wide outside its branches."""
    channels = 64
    body = named(stem=conv_norm_relu(in_channels, channels, 3))
    for number, count in enumerate(blocks, start=1):
        width = 32 * 2**number
        stage = nn.Sequential()
        for position in range(count):
            stride = 2 if number > 1 and position == 0 else 1
            out_channels = expansion * width
            changes_shape = stride != 1 or channels != out_channels
            shortcut = conv_norm(channels, out_channels, 1, stride) if changes_shape else None
            stage.append(ResidualBlock(branch(channels, width, stride), shortcut))
            channels = out_channels
        body.add_module(f"stage{number}", stage)
    network = Network(body, create_classifier(classifier, channels, num_classes))
    kaiming_fan_out(network)
    return network


def _branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    hidden = _GROUPS * out_channels // 4
    return nn.Sequential(
        *conv_norm_relu(in_channels, hidden, 1),
        *conv_norm_relu(hidden, hidden, 3, stride, groups=_GROUPS),
        *conv_norm(hidden, out_channels, 1),
    )


def resnext29(*, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    channels = _STEM
    body = named(stem=conv_norm_relu(in_channels, channels, 3))
    for number, (width, first_stride) in enumerate(_STAGES, start=1):
        stage = nn.Sequential()
        for position in range(_BLOCKS):
            stride = first_stride if position == 0 else 1
            shortcut = conv_norm(channels, width, 1, stride) if position == 0 else None
            stage.append(ResidualBlock(_branch(channels, width, stride), shortcut))
            channels = width
        body.add_module(f"stage{number}", stage)
    network = Network(body, create_classifier(classifier, channels, num_classes))
    kaiming_fan_out(network)
    if isinstance(network.classifier, nn.Linear):
        nn.init.kaiming_normal_(network.classifier.weight)
        nn.init.zeros_(network.classifier.bias)
    return network


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(cifar_resnet, depth, _NARROW) for depth in (8, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(cifar_resnet, depth, _WIDE) for depth in (8, 32)},
    "resnet18": partial(large_resnet, basic_branch, 1, (2, 2, 2, 2)),
    "resnet50": partial(large_resnet, bottleneck_branch, 4, (3, 4, 6, 3)),
    "resnext29": resnext29,
}
