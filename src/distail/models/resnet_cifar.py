"""The ResNets of the CIFAR literature: three stages, depth 6n + 2 (He 2016)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from distail.errors import ModelError, unknown_name
from distail.models.classifiers import create_classifier
from distail.models.layers import conv_norm, conv_norm_relu, global_average


class PadShortcut(nn.Module):
    """Parameter-free shortcut (option A of He 2016): every stride-th pixel, new channels zero, half on each side."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, images_NCHW: Tensor) -> Tensor:
        kept_NCHW = images_NCHW[:, :, :: self.stride, :: self.stride]
        return F.pad(kept_NCHW, (0, 0, 0, 0, self.before, self.after))


def conv_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Projection shortcut (option B of He 2016): a strided 1x1 convolution and batch normalisation."""
    return conv_norm(in_channels, out_channels, 1, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, (N, in, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.first = conv_norm_relu(in_channels, out_channels, 3, stride)
        self.second = conv_norm(out_channels, out_channels, 3)
        changes_shape = stride != 1 or in_channels != out_channels
        self.shortcut = shortcut(in_channels, out_channels, stride) if changes_shape else nn.Identity()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return F.relu(self.second(self.first(images_NCHW)) + self.shortcut(images_NCHW), inplace=True)


def initialise_repdistiller(network: nn.Module) -> None:
    """Kaiming normal over the fan out for convolutions; torch's default for the classifier. [code]"""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def initialise_ldam(network: nn.Module) -> None:
    """Kaiming normal over the fan in for convolutions and for a linear classifier. [code]"""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


# The two lines of published code differ in both, and numbers are only comparable within a line.
SHORTCUTS: dict[str, tuple[Callable[..., nn.Module], Callable[[nn.Module], None]]] = {
    "conv": (conv_shortcut, initialise_repdistiller),
    "pad": (PadShortcut, initialise_ldam),
}


class CifarResNet(nn.Module):
    """Stem and three stages of basic blocks; images (N, in_channels, H, W) to logits (N, num_classes).

    ``shortcut="conv"`` is the RepDistiller and mdistiller line, ``"pad"`` the LDAM and BKD line (see `SHORTCUTS`).
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int],
        *,
        num_classes: int,
        in_channels: int,
        shortcut: str,
        classifier: str,
    ) -> None:
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise ModelError(unknown_name("shortcut", shortcut, SHORTCUTS))
        make_shortcut, initialise = SHORTCUTS[shortcut]
        blocks_per_stage = (depth - 2) // 6
        stem, *stages = widths
        self.stem = conv_norm_relu(in_channels, stem, 3)
        self.stages = nn.Sequential()
        channels = stem
        for stage, width in enumerate(stages):
            for block in range(blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(BasicBlock(channels, width, stride, make_shortcut))
                channels = width
        self.classifier = create_classifier(classifier, channels, num_classes)
        initialise(self)

    def forward_features(self, images_NCHW: Tensor) -> Tensor:
        return global_average(self.stages(self.stem(images_NCHW)))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NC: Tensor = self.classifier(self.forward_features(images_NCHW))
        return logits_NC


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth, _NARROW) for depth in (8, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(CifarResNet, depth, _WIDE) for depth in (8, 32)},
}
