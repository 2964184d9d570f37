"""ResNeXt-29, 8 groups of 64 channels, for 32x32 images (Xie 2017), as DR-KD's code has it. [code]"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from distail.models.classifiers import create_classifier
from distail.models.layers import ResidualBlock, conv_norm, conv_norm_relu, kaiming_fan_out, named
from distail.models.network import Network

_GROUPS = 8
_STEM = 64
_STAGES = ((256, 1), (512, 2), (1024, 2))  # width outside the branches, stride of the first block
_BLOCKS = 3


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


BUILDERS: dict[str, Callable[..., nn.Module]] = {"resnext29": resnext29}
