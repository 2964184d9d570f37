"""A multilayer perceptron, for tables and other arrays.

Shapes: B batch, C classes, D width of the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from distail.errors import ModelError
from distail.models.layers import create_classifier


class MultilayerPerceptron(nn.Module):
    """Inputs (B, ...), flattened, to logits (B, C); the features (B, D) are what the last hidden layer gives."""

    def __init__(self, body: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier

    def forward(self, inputs: Tensor) -> Tensor:
        logits_BC: Tensor = self.classifier(self.body(inputs))
        return logits_BC


def mlp(
    *,
    num_classes: int,
    in_channels: int = 3,
    classifier: str = "linear",
    image_size: int = 32,
    input_shape: Sequence[int] | None = None,
    hidden: int = 256,
    depth: int = 2,
    dropout: float = 0.0,
) -> MultilayerPerceptron:
    """`depth` times a linear layer of `hidden` units, ReLU and dropout, then the classifier.

    As the baseline "MLP" of Gorishniy 2021 (Revisiting Deep Learning Models for Tabular Data, equation 1) [paper].

    Args:
        input_shape: of one example; by default (in_channels, image_size, image_size).

    >>> network = mlp(num_classes=3, input_shape=(13,), hidden=8, depth=2)
    >>> [name for name, _ in network.named_parameters()][-2:], sum(each.numel() for each in network.parameters())
    (['classifier.weight', 'classifier.bias'], 211)
    """
    if not 0 <= dropout < 1:
        raise ModelError(f"dropout is {dropout}; expected a share from 0 to below 1")
    width = math.prod(input_shape or (in_channels, image_size, image_size))
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(width, hidden), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        width = hidden
    return MultilayerPerceptron(nn.Sequential(*layers), create_classifier(classifier, width, num_classes))


BUILDERS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp}
