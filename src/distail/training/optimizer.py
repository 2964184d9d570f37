"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from distail.config.schema import Training


def build_optimizer(parameters: Iterable[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """The optimiser that `training` names, over all `parameters` in one group."""
    return _OPTIMIZERS[training.optimizer](list(parameters), training)


def _sgd(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
    )


def _adamw(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)


_OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Training], torch.optim.Optimizer]] = {"sgd": _sgd, "adamw": _adamw}
