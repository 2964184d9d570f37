"""Logits of a whole data set, in its order.

Shapes: N images, C classes; in NCHW, channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from distail.data.batches import Batch, evaluation_batches
from distail.data.dataset import Examples
from distail.inputs import call
from distail.outputs import Outputs
from distail.terminal import every_half_minute
from distail.training.device import RuntimeDevice

_LARGEST_BATCH, _SMALLEST_BATCH = 512, 16
# The largest batch of this many pixels a side; of larger images fewer, so that memory stays bounded.
_SIDE = 96


class Classifier(Protocol):
    """A module from the inputs of a batch, such as images (B, channels, H, W), to `Outputs` with logits
    (B, num_classes), such as a `FeatureTap`."""

    num_classes: int
    training: bool

    def __call__(self, *inputs: Any, **named: Any) -> Outputs: ...
    def eval(self) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


def predict(
    network: Classifier,
    data: Examples,
    mean: Sequence[float],
    std: Sequence[float],
    runtime: RuntimeDevice,
    *,
    tell: Callable[[str], None] | None = None,
    what: str = "prediction",
) -> Tensor:
    """Logits (N, C) in float32 on the CPU, without augmentation; processes share the work and all get the whole.

    Computed in float32, however the network was trained: of logits in bf16 several are often equally the highest, and
    the first of them, in a long tail the most frequent class, would win.

    Args:
        tell: told at least every half minute how far it is.
        what: what it is told of, such as "student: test".
    """
    advance = every_half_minute(what, len(data), tell, f" {data.noun}s") if tell else None
    logits_NC = torch.zeros(len(data), network.num_classes, device=runtime.device)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for batch in in_order(data, mean, std, runtime):
            if len(batch.index):
                logits_NC[batch.index] = call(network, batch.inputs).logits.float()
            if advance is not None:
                advance(len(batch.index) * runtime.processes.size)
    network.train(was_training)
    return runtime.processes.sum(logits_NC).cpu()


def in_order(data: Examples, mean: Sequence[float], std: Sequence[float], runtime: RuntimeDevice) -> Iterator[Batch]:
    """The whole data set without augmentation, on the machine's device, in this process's shares."""
    return evaluation_batches(
        data,
        batch_size=evaluation_batch_size(data.input_shape),
        mean=mean,
        std=std,
        device=runtime.device,
        channels_last=runtime.channels_last,
        rank=runtime.processes.rank,
        world_size=runtime.processes.size,
    )


def evaluation_batch_size(shape: Sequence[int]) -> int:
    """Examples of a shape, such as (channels, height, width), that a network looks at together, untrained.

    >>> evaluation_batch_size((3, 32, 32)), evaluation_batch_size((3, 224, 224)), evaluation_batch_size((64,))
    (512, 94, 512)
    """
    return max(_SMALLEST_BATCH, min(_LARGEST_BATCH, _LARGEST_BATCH * _SIDE**2 // math.prod(shape[1:])))
