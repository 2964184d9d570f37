"""The ResNets of the CIFAR literature: three stages of basic blocks, depth 6n + 2 (He 2016)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from distail.errors import ModelError, unknown_name
from distail.models.classifiers import create_classifier
from distail.models.layers import ResidualBlock, conv_norm, conv_norm_relu, kaiming_fan_in, kaiming_fan_out, named
from distail.models.network import Network


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
    """Projection shortcut (option B of He 2016): a strided 1x1 convolution and batch normalisation."""
    return conv_norm(in_channels, out_channels, 1, stride)


# Shortcut and initialisation: the two lines of published code differ in both, and numbers compare within a line only.
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
    shortcut: str = "conv",
    classifier: str = "linear",
) -> Network:
    """A stem ``widths[0]`` wide and a stage for each further width; the first stage keeps the resolution."""
    if shortcut not in LINES:
        raise ModelError(unknown_name("shortcut", shortcut, LINES))
    make_shortcut, initialise = LINES[shortcut]
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
    initialise(network)
    return network


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(cifar_resnet, depth, _NARROW) for depth in (8, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(cifar_resnet, depth, _WIDE) for depth in (8, 32)},
}
