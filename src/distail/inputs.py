"""What a network is given: a tensor, or tensors by keyword.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Inputs = Tensor | dict[str, Tensor]
"""A batch: one tensor (B, ...), or several by the names of the network's parameters, each (B, ...)."""


def call(network: Callable[..., Any], inputs: Inputs) -> Any:
    """What a network gives: tensors by name reach it as keywords.

    >>> call(lambda left, right: left - right, {"right": 1, "left": 3})
    2
    """
    return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)


def each_tensor(change: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """The same change of every tensor.

    >>> import torch
    >>> each_tensor(lambda tensor: tensor[:1], {"ids": torch.zeros(3, 2)})["ids"].shape
    torch.Size([1, 2])
    """
    if isinstance(inputs, Mapping):
        return {name: change(tensor) for name, tensor in inputs.items()}
    return change(inputs)


def first_tensor(inputs: Inputs) -> Tensor:
    """One tensor (B, ...) of them: by it the size of the batch is known, and its device."""
    return next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs


def described(inputs: Inputs) -> str:
    """Their shapes, for a message.

    >>> import torch
    >>> described(torch.zeros(2, 3)), described({"ids": torch.zeros(2, 5, dtype=torch.int64)})
    ('inputs (2, 3)', "inputs {'ids': (2, 5)}")
    """
    if isinstance(inputs, Mapping):
        return f"inputs { ({name: tuple(tensor.shape) for name, tensor in inputs.items()}) }"
    return f"inputs {tuple(inputs.shape)}"
