"""What all our own networks are: a body, a mean over space, a classifier."""

from __future__ import annotations

from torch import Tensor, nn


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
