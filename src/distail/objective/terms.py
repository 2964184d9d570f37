"""What a method answers: its terms, each with its weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


class Terms(Mapping[str, Tensor]):
    """A method's loss: its terms by name, each a scalar that already carries its weight.

    Attributes:
        per_sample: (B,), the sum of the terms of each sample.
        total: the mean of `per_sample`, which is the sum of the terms.
        statistics: detached scalars for the log, by name; not part of the total.

    >>> terms = Terms({"supervised": torch.tensor([1.0, 3.0]), "distillation": torch.tensor([0.5, 0.5])})
    >>> terms["supervised"], terms.total, list(terms)
    (tensor(2.), tensor(2.5000), ['supervised', 'distillation'])
    """

    def __init__(self, losses_B: Mapping[str, Tensor], statistics: Mapping[str, Tensor] | None = None) -> None:
        self._terms = {name: values_B.mean() for name, values_B in losses_B.items()}
        parts = list(losses_B.values())
        self.per_sample: Tensor = parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)
        self.total: Tensor = self.per_sample.mean()
        self.statistics: dict[str, Tensor] = dict(statistics or {})

    def __getitem__(self, name: str) -> Tensor:
        return self._terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __repr__(self) -> str:
        return f"Terms(total={self.total!r}, {', '.join(f'{name}={value!r}' for name, value in self.items())})"


@dataclass(frozen=True)
class TermWeights:
    """The weights that every method takes; its loss is the weighted sum of its terms."""

    supervised: float = 1.0
    distillation: float = 1.0
    representation: float = 1.0
    auxiliary: float = 1.0
