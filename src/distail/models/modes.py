"""Looking at a network without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Everything in eval mode for a while; afterwards each module is in its own mode again, frozen parts included.

    >>> model = nn.Sequential(nn.Dropout().eval(), nn.Dropout())
    >>> with eval_mode(model):
    ...     print([part.training for part in model])
    [False, False]
    >>> [part.training for part in model]
    [False, True]
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
