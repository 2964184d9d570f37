"""A multilayer perceptron, for tables and other arrays.

Shapes: B batch, C classes, D width of the features, or of an example; K columns of codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
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


class EmbeddedColumns(nn.Module):
    """Rows (B, D) of numbers and codes to (B, width): the numbers as they are, then a learned vector for each code.

    A column of n codes has vectors of min(600, round(1.6 n**0.56)) numbers, which begin with a deviation of 0.01, cut
    off at two of them, as in fastai [code]. Code 0, which stands for what training never had, is a vector of zeros and
    stays so, and so is what is no code [ours].

    >>> embedded = EmbeddedColumns((0, 3, 40))
    >>> embedded.width, [tuple(table.weight.shape) for table in embedded.tables]
    (17, [(3, 3), (40, 13)])
    >>> embedded(torch.tensor([[0.5, 0.0, 99.0]])).unique().tolist()
    [0.0, 0.5]
    """

    numbers: Tensor
    codes: Tensor
    counts: Tensor

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        counts = [count for count in cardinalities if count]
        tables = [nn.Embedding(count, _embedding_width(count), padding_idx=0) for count in counts]
        for table in tables:
            nn.init.trunc_normal_(table.weight, std=0.01, a=-0.02, b=0.02)
            nn.init.zeros_(table.weight[0])
        self.tables = nn.ModuleList(tables)
        for name, is_code in (("numbers", False), ("codes", True)):
            places = [place for place, count in enumerate(cardinalities) if bool(count) is is_code]
            self.register_buffer(name, torch.tensor(places, dtype=torch.int64), persistent=False)
        self.register_buffer("counts", torch.tensor(counts), persistent=False)
        self.width = len(self.numbers) + sum(table.embedding_dim for table in tables)

    def forward(self, inputs_BD: Tensor) -> Tensor:
        codes_BK = inputs_BD.index_select(1, self.codes).round().long()
        codes_BK = torch.where((codes_BK >= 0) & (codes_BK < self.counts), codes_BK, 0)
        vectors = [table(codes_BK[:, place]) for place, table in enumerate(self.tables)]
        numbers = [inputs_BD.index_select(1, self.numbers)] if len(self.numbers) else []
        return torch.cat([*numbers, *vectors], dim=1)


def _embedding_width(count: int) -> int:
    return min(600, round(1.6 * math.pow(count, 0.56)))


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
    cardinalities: Sequence[int] | None = None,
) -> MultilayerPerceptron:
    """`depth` times a linear layer of `hidden` units, ReLU and dropout, then the classifier.

    As the baseline "MLP" of Gorishniy 2021 (Revisiting Deep Learning Models for Tabular Data, equation 1) [paper].

    Args:
        input_shape: of one example; by default (in_channels, image_size, image_size).
        cardinalities: of each column of a table how many codes it has, which are then looked up (`EmbeddedColumns`); 0
            of a number. None: all are numbers.

    Raises:
        ModelError: `dropout` is no share, or `cardinalities` are not of the columns.

    >>> network = mlp(num_classes=3, input_shape=(13,), hidden=8, depth=2)
    >>> [name for name, _ in network.named_parameters()][-2:], sum(each.numel() for each in network.parameters())
    (['classifier.weight', 'classifier.bias'], 211)
    """
    if not 0 <= dropout < 1:
        raise ModelError(f"dropout is {dropout}; expected a share from 0 to below 1")
    shape = tuple(input_shape or (in_channels, image_size, image_size))
    if cardinalities and shape != (len(cardinalities),):
        raise ModelError(
            f"{len(cardinalities)} cardinalities for inputs (batch, {shape}); expected one for each column"
        )
    first = EmbeddedColumns(cardinalities) if cardinalities else nn.Flatten()
    width = first.width if isinstance(first, EmbeddedColumns) else math.prod(shape)
    layers: list[nn.Module] = [first]
    for _ in range(depth):
        layers += [nn.Linear(width, hidden), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        width = hidden
    return MultilayerPerceptron(nn.Sequential(*layers), create_classifier(classifier, width, num_classes))


BUILDERS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp}
