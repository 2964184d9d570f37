"""The four-stage ResNets of ImageNet (He 2016) with a 3x3 stem and no pooling, as they are used on 32x32 images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from distail.models.classifiers import create_classifier
from distail.models.layers import ResidualBlock, conv_norm, conv_norm_relu, kaiming_fan_out, named
from distail.models.network import Network


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


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(large_resnet, basic_branch, 1, (2, 2, 2, 2)),
    "resnet50": partial(large_resnet, bottleneck_branch, 4, (3, 4, 6, 3)),
}
