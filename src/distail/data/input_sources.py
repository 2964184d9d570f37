"""Where the inputs of a batch come from, whatever the data is: images, arrays, or items of the user's own data sets.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from distail.config.augment import Augment
from distail.data.arrays import ArrayInputs, LabeledArrays, arrays_in_order
from distail.data.augment import Augmentation, Draws
from distail.data.dataset import Examples, is_images
from distail.data.image_inputs import ImageInputs, normalized_in_order
from distail.data.items import ItemInputs, StreamedItems, items_in_order
from distail.inputs import Inputs


class InputSource(Protocol):
    """Inputs of one training batch after another."""

    augmentations: Mapping[str, Augmentation]
    """What each example draws."""

    def batches(self, wanted: Iterable[tuple[Tensor, Draws]]) -> Iterator[tuple[Tensor, Inputs]]:
        """For each `index_B` (B,) on the CPU, with its draws: the index and the inputs, on the training device."""
        ...

    def close(self) -> None:
        """Let go of whatever is held."""
        ...


def input_source(
    data: Examples,
    batch_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Sequence[Augment],
    device: torch.device | str,
    channels_last: bool,
) -> InputSource:
    """The source for a data set; `batch_size` is the most that is wanted at once."""
    if isinstance(data, LabeledArrays):
        return ArrayInputs(data, mean, std, device)
    if isinstance(data, StreamedItems):
        return ItemInputs(data, device)
    return ImageInputs(
        data, batch_size, mean=mean, std=std, augment=augment, device=device, channels_last=channels_last
    )


def inputs_in_order(
    data: Examples,
    parts: Sequence[slice],
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
    *,
    channels_last: bool,
) -> Iterator[Inputs]:
    """The inputs of each part of the data, of at most `batch_size`, without augmentation, on the device."""
    if isinstance(data, LabeledArrays):
        return arrays_in_order(data, parts, mean, std, device)
    if isinstance(data, StreamedItems):
        return items_in_order(data, parts, device)
    return normalized_in_order(data, parts, batch_size, mean, std, device, channels_last=channels_last)


def sample_inputs(data: Examples, count: int) -> Inputs:
    """Inputs such as the data's, to see what a network makes of them: zeros, or an item of the user's."""
    if isinstance(data, StreamedItems):
        return data.first(count)
    if isinstance(data, LabeledArrays):
        return data.inputs.new_zeros((count, *data.input_shape))
    return torch.zeros(count, *data.image_shape)


def noise_inputs(data: Examples, count: int) -> Inputs:
    """Such inputs on which networks differ in their answers: noise in place of images, the same at every call."""
    if not is_images(data):
        return sample_inputs(data, count)
    return torch.randn(count, *data.image_shape, generator=torch.Generator().manual_seed(0))
