"""MobileNetV2 (Sandler 2018) at half width and with plain ReLUs: the student of the RepDistiller protocol. [code]"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from distail.models.classifiers import create_classifier
from distail.models.layers import conv_norm, conv_norm_relu, kaiming_fan_out, named, small_linear
from distail.models.network import Network

# expansion, width, blocks, stride of the first block
_STAGES = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
_STEM = 16
_FEATURES = 1280


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.branch = nn.Sequential(
            *conv_norm_relu(in_channels, hidden, 1),
            *conv_norm_relu(hidden, hidden, 3, stride, groups=hidden),
            *conv_norm(hidden, out_channels, 1),
        )
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        out_NCHW: Tensor = self.branch(maps_NCHW)
        return maps_NCHW + out_NCHW if self.adds_input else out_NCHW


def mobilenetv2(*, num_classes: int, in_channels: int = 3, classifier: str = "linear") -> Network:
    body = named(stem=conv_norm_relu(in_channels, _STEM, 3, 2))
    channels = _STEM
    for number, (expansion, width, blocks, first_stride) in enumerate(_STAGES, start=1):
        stage = nn.Sequential()
        for position in range(blocks):
            stage.append(InvertedResidual(channels, width, first_stride if position == 0 else 1, expansion))
            channels = width
        body.add_module(f"stage{number}", stage)
    body.add_module("head", conv_norm_relu(channels, _FEATURES, 1))
    network = Network(body, create_classifier(classifier, _FEATURES, num_classes))
    kaiming_fan_out(network)
    small_linear(network)
    return network


BUILDERS: dict[str, Callable[..., nn.Module]] = {"mobilenetv2": mobilenetv2}
