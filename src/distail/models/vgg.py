"""VGG with batch normalization and one linear layer (Simonyan 2015, in the form of the distillation literature)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from distail.models.layers import Network, create_classifier, kaiming_fan_out, named, small_linear

_WIDTHS = (64, 128, 256, 512, 512)


def vgg(
    convolutions_per_stage: int,
    *,
    num_classes: int,
    in_channels: int = 3,
    classifier: str = "linear",
    image_size: int = 32,
) -> Network:
    """Five stages, pooled by two after each of the first three, and after the fourth for images of 64 pixels or more.

    RepDistiller pools a fourth time for 64 pixels exactly [code]; larger images are treated alike, and odd sizes are
    rounded up, so that images of any size pass [ours].
    """
    pooled_stages = 4 if image_size >= 64 else 3
    channels = in_channels
    body = named()
    for number, width in enumerate(_WIDTHS, start=1):
        stage = nn.Sequential()
        for _ in range(convolutions_per_stage):
            # The bias does nothing before batch normalization; it is kept for the published parameter counts.
            stage.extend([nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
            channels = width
        if number <= pooled_stages:
            stage.append(nn.MaxPool2d(2, ceil_mode=True))
        body.add_module(f"stage{number}", stage)
    network = Network(body, create_classifier(classifier, channels, num_classes))
    kaiming_fan_out(network)
    small_linear(network)
    return network


BUILDERS: dict[str, Callable[..., nn.Module]] = {"vgg8": partial(vgg, 1), "vgg13": partial(vgg, 2)}
