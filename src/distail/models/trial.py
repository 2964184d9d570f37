"""One forward pass before any training, for networks that distail did not write."""

from __future__ import annotations

import traceback

import torch
from torch import Tensor, nn

from distail.errors import ModelError
from distail.torch_utils import eval_mode


def try_once(model: nn.Module, name: str, shape: tuple[int, int, int, int], num_classes: int) -> None:
    """Raises `ModelError` unless zeros of ``shape`` give logits (shape[0], ``num_classes``) in eval mode.

    Modes and running statistics are as before afterwards. ``name`` is what messages call the network.

    >>> try_once(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), "mine", (2, 3, 2, 2), num_classes=4)
    Traceback (most recent call last):
        ...
    distail.errors.ModelError: 'mine': images (2, 3, 2, 2) must give logits (2, 4), got shape (2, 5)
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad(), eval_mode(model):
            logits = model(torch.zeros(shape, device=device))
    except Exception as error:
        raise ModelError(f"{name!r}: the network failed on images {shape} with {where(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (shape[0], num_classes):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"{name!r}: images {shape} must give logits ({shape[0]}, {num_classes}), got {got}")


def where(error: BaseException) -> str:
    """Type, message and place of an error in code that distail did not write."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
