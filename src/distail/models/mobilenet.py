"""MobileNetV2 (Sandler 2018), twice. [code]

`mobilenetv2`: half width, plain ReLUs and a stem of stride 2, the student of the RepDistiller protocol.
`mobilenetv2-full`: full width, ReLU6, biases and a stem of stride 1, as DR-KD's code has it (from pytorch-cifar100).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from distail.models.layers import (
    Network,
    conv_norm,
    conv_norm_relu,
    conv_norm_relu6,
    create_classifier,
    kaiming_fan_out,
    named,
    small_linear,
)

# of the stages: expansion, blocks, and the stride of the first block in either network
_STAGES = ((1, 1, 1, 1), (6, 2, 1, 2), (6, 3, 2, 2), (6, 4, 2, 2), (6, 3, 1, 1), (6, 3, 2, 1), (6, 1, 1, 1))
_HALF_WIDTHS = (8, 12, 16, 32, 48, 80, 160)
_FEATURES = 1280

Convolve = Callable[..., nn.Sequential]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, convolve: Convolve, project: Convolve
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.branch = nn.Sequential(
            *convolve(in_channels, hidden, 1),
            *convolve(hidden, hidden, 3, stride, groups=hidden),
            *project(hidden, out_channels, 1),
        )
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        out_NCHW: Tensor = self.branch(maps_NCHW)
        return maps_NCHW + out_NCHW if self.adds_input else out_NCHW


def mobilenetv2(*, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    stem = conv_norm_relu(in_channels, 16, 3, 2)
    strides = [stride for _, _, stride, _ in _STAGES]
    network = _network(stem, 16, _HALF_WIDTHS, strides, conv_norm_relu, conv_norm, num_classes, classifier)
    kaiming_fan_out(network)
    small_linear(network)
    return network


def mobilenetv2_full(*, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    # a 1x1 stem with a border of one pixel, which it fills with its bias [code]
    stem = nn.Sequential(nn.Conv2d(in_channels, 32, 1, padding=1), nn.BatchNorm2d(32), nn.ReLU6(inplace=True))
    widths = [2 * width for width in _HALF_WIDTHS]
    strides = [stride for *_, stride in _STAGES]
    project = partial(conv_norm, bias=True)
    return _network(stem, 32, widths, strides, conv_norm_relu6, project, num_classes, classifier)


def _network(
    stem: nn.Sequential,
    channels: int,
    widths: Sequence[int],
    strides: Sequence[int],
    convolve: Convolve,
    project: Convolve,
    num_classes: int,
    classifier: str,
) -> Network:
    body = named(stem=stem)
    for number, (width, first_stride, (expansion, blocks, *_)) in enumerate(
        zip(widths, strides, _STAGES, strict=True), start=1
    ):
        stage = nn.Sequential()
        for position in range(blocks):
            stride = first_stride if position == 0 else 1
            stage.append(InvertedResidual(channels, width, stride, expansion, convolve, project))
            channels = width
        body.add_module(f"stage{number}", stage)
    body.add_module("head", convolve(channels, _FEATURES, 1))
    return Network(body, create_classifier(classifier, _FEATURES, num_classes))


BUILDERS: dict[str, Callable[..., nn.Module]] = {"mobilenetv2": mobilenetv2, "mobilenetv2-full": mobilenetv2_full}
