"""Wide residual networks (Zagoruyko 2016): normalization and ReLU come before each convolution, depth 6n + 4."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from distail.models.layers import Network, create_classifier, kaiming_fan_out, named, norm_relu


def _conv(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class SameWidthBlock(nn.Module):
    """x + branch(activate(x)): the sum runs past every activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.activate = norm_relu(width)
        self.branch = nn.Sequential(_conv(width, width, 1), *norm_relu(width), _conv(width, width, 1))

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        worked_NCHW: Tensor = self.branch(self.activate(maps_NCHW))
        return maps_NCHW + worked_NCHW


class WideningBlock(nn.Module):
    """branch(activate(x)) + shortcut(activate(x)), where width or resolution changes."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.activate = norm_relu(in_channels)
        self.branch = nn.Sequential(_conv(in_channels, width, stride), *norm_relu(width), _conv(width, width, 1))
        self.shortcut = nn.Conv2d(in_channels, width, 1, stride, bias=False)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        active_NCHW = self.activate(maps_NCHW)
        widened_NCHW: Tensor = self.branch(active_NCHW) + self.shortcut(active_NCHW)
        return widened_NCHW


def wide_resnet(
    depth: int, widening: int, *, num_classes: int, in_channels: int = 3, classifier: str = "linear"
) -> Network:
    """Stem of 16, then stages of 16, 32 and 64 times `widening`; no dropout, as in the distillation literature."""
    channels = 16
    body = named(stem=_conv(in_channels, channels, 1))
    for number in (1, 2, 3):
        width = 8 * 2**number * widening
        stage = nn.Sequential()
        for position in range((depth - 4) // 6):
            stride = 2 if number > 1 and position == 0 else 1
            stage.append(SameWidthBlock(width) if channels == width else WideningBlock(channels, width, stride))
            channels = width
        body.add_module(f"stage{number}", stage)
    body.add_module("activate", norm_relu(channels))
    network = Network(body, create_classifier(classifier, channels, num_classes))
    kaiming_fan_out(network)
    if isinstance(network.classifier, nn.Linear):
        nn.init.zeros_(network.classifier.bias)
    return network


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    f"wrn-{depth}-{widening}": partial(wide_resnet, depth, widening) for depth, widening in ((16, 2), (40, 1), (40, 2))
}
