"""A moving average of a network's weights, buffers included: what is validated, tested and stored in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from distail.training.distributed import Processes


def covered_steps(decay: float) -> int:
    """Over how many of the last steps such an average goes, by and large: ``1 / (1 - decay)``.

    >>> covered_steps(0.99)
    100
    """
    return round(1 / (1 - decay))


class AveragedWeights:
    """``sum_s decay**(t - s) * w_s``, over the sum of those factors, for the weights ``w_s`` after each step s to t.

    Dividing by the sum is the bias correction of Adam (Kingma and Ba 2015): the first average is the first step's
    weights, and none remembers the weights that training began with. A decay of 0 is the weights themselves. Floating
    and complex parameters and buffers (batch normalization's statistics) are averaged; counters stay the network's own.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = AveragedWeights(layer, decay=0.5)
    >>> for step, value in enumerate([1.0, 4.0], 1):
    ...     _ = layer.weight.data.fill_(value)
    ...     average.update(step)
    >>> average.tensors["weight"].item()  # (0.5 * 1 + 1 * 4) / 1.5
    3.0
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        state = network.state_dict()
        self._live = {name: value for name, value in state.items() if value.is_floating_point() or value.is_complex()}
        self._buffers = {name for name, _ in network.named_buffers()}
        self.tensors = {name: value.clone() for name, value in self._live.items()}

    def update(self, step: int) -> None:
        """Take up the weights after `step` steps, the first of which is 1."""
        share = (1 - self._decay) / (1 - self._decay**step)
        with torch.no_grad():
            average = get_ema_multi_avg_fn(1 - share)  # type: ignore[no-untyped-call]
            average(list(self.tensors.values()), list(self._live.values()), step)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the `tensors` of an earlier process."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    def sync_buffers(self, processes: Processes) -> None:
        """Average what each process has seen of its own part; parameters are the same in all."""
        processes.average([value for name, value in self.tensors.items() if name in self._buffers])

    def apply(self) -> None:
        """Put the average in place of the network's weights."""
        with torch.no_grad():
            for name, value in self._live.items():
                value.copy_(self.tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The same for a while."""
        own = {name: value.clone() for name, value in self._live.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in self._live.items():
                    value.copy_(own[name])
