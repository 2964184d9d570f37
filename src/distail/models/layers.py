"""Pieces that several networks share.

Shapes: N images, B batch, C classes, D features or their maps, H height, W width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distail.errors import ModelError, unknown_name


def named(**modules: nn.Module) -> nn.Sequential:
    """A sequence whose parts carry names, so that the keys of stored weights can be read."""
    return nn.Sequential(OrderedDict(modules))


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """Convolution with "same" padding, then batch normalization.

    Before that a bias does nothing: some networks have one for their published parameter counts.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias),
        nn.BatchNorm2d(out_channels),
    )


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """`conv_norm` and a ReLU, in place because nobody else reads the normalized map."""
    convolved = conv_norm(in_channels, out_channels, kernel, stride, groups, bias=bias)
    return nn.Sequential(*convolved, nn.ReLU(inplace=True))


def conv_norm_relu6(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution with a bias, batch normalization, and a ReLU that ends at 6."""
    convolved = conv_norm(in_channels, out_channels, kernel, stride, groups, bias=True)
    return nn.Sequential(*convolved, nn.ReLU6(inplace=True))


def norm_relu(channels: int) -> nn.Sequential:
    """Batch normalization and a ReLU, for networks that normalize before each convolution."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """relu(branch(x) + shortcut(x)); the shortcut is the identity unless one is given."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return F.relu(self.branch(maps_NCHW) + self.shortcut(maps_NCHW), inplace=True)


def kaiming_fan_out(network: nn.Module) -> None:
    """Kaiming normal over the fan out for convolutions, as RepDistiller and mdistiller start. [code]"""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kaiming_fan_in(network: nn.Module) -> None:
    """Kaiming normal over the fan in for convolutions and a linear classifier, as LDAM and BKD start. [code]"""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


def small_linear(network: nn.Module) -> None:
    """Nearly uniform first predictions: linear weights of deviation 0.01, biases zero (VGG, MobileNetV2). [code]"""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


class Network(nn.Module):
    """Images (N, channels, H, W) to logits (N, C), with the penultimate features (N, D) on the way.

    The mean over space makes every network take images of any size.

    >>> import torch
    >>> network = Network(nn.Conv2d(3, 8, 3), nn.Linear(8, 10))
    >>> images_NCHW = torch.zeros(2, 3, 28, 28)
    >>> tuple(network(images_NCHW).shape), tuple(network.forward_features(images_NCHW).shape)
    ((2, 10), (2, 8))
    """

    def __init__(self, body: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier

    def forward_features(self, images_NCHW: Tensor) -> Tensor:
        maps_NDHW: Tensor = self.body(images_NCHW)
        return maps_NDHW.mean((2, 3))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NC: Tensor = self.classifier(self.forward_features(images_NCHW))
        return logits_NC


class CosineClassifier(nn.Module):
    """Cosines between features (B, D) and class weights, times a fixed scale: logits (B, C) in [-scale, scale].

    The head that LDAM trains with (Cao 2019, `NormedLinear` [code]). There the raw cosines are the output and the
    loss multiplies by 30; here the scale belongs to the model [ours], so that its logits mean the same to every loss,
    metric and export. `logits / classifier.scale` are the cosines.

    >>> head = CosineClassifier(4, 10)
    >>> features_BD = torch.ones(2, 4)
    >>> logits_BC = head(features_BD)
    >>> bool((logits_BC.abs() <= head.scale + 1e-4).all()), torch.allclose(logits_BC, head(7 * features_BD), atol=1e-4)
    (True, True)
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 30.0) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.scale = scale
        # Directions only matter up to length, and unit length keeps the first updates the same size for every class.
        self.weight = nn.Parameter(F.normalize(torch.empty(out_features, in_features).uniform_(-1, 1)))

    def forward(self, features_BD: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features_BD), F.normalize(self.weight))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale}"


CLASSIFIERS: dict[str, Callable[[int, int], nn.Module]] = {"linear": nn.Linear, "cosine": CosineClassifier}


def create_classifier(name: str, in_features: int, num_classes: int) -> nn.Module:
    """The named classifier, features (B, D) to logits (B, C).

    Raises:
        ModelError: the name is unknown.

    >>> create_classifier("linear", 64, 10)
    Linear(in_features=64, out_features=10, bias=True)
    """
    if name not in CLASSIFIERS:
        raise ModelError(unknown_name("classifier", name, CLASSIFIERS))
    return CLASSIFIERS[name](in_features, num_classes)
