"""The last layer of a network: linear, or cosine for margin losses such as LDAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distail.errors import ModelError, unknown_name


class CosineClassifier(nn.Module):
    """Cosines between features (B, D) and class weights, times a fixed scale: logits (B, C) in [-scale, scale].

    The head that LDAM trains with (Cao 2019, ``NormedLinear`` [code]). There the raw cosines are the output and the
    loss multiplies by 30; here the scale belongs to the model [ours], so that its logits mean the same to every loss,
    metric and export. ``logits / classifier.scale`` are the cosines.

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
    """The named classifier, features (B, D) to logits (B, C); an unknown name is a `ModelError`.

    >>> create_classifier("linear", 64, 10)
    Linear(in_features=64, out_features=10, bias=True)
    """
    if name not in CLASSIFIERS:
        raise ModelError(unknown_name("classifier", name, CLASSIFIERS))
    return CLASSIFIERS[name](in_features, num_classes)
