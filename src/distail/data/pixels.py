"""Where the pixels of a batch come from: from memory, or from files that are decoded ahead.

Shapes: B batch, N images, H height, W width; pixels as in `distail.data.augment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

import torch
from torch import Tensor

from distail.data.augment import as_images, as_pixels
from distail.data.dataset import Images, LabeledImages, StreamedImages
from distail.data.streaming import ImageStream
from distail.torch_utils import to_device


class PixelSource(Protocol):
    """Pixels (N, planes, H, W, unit) for one batch after another; see `distail.data.augment`."""

    holds_all: bool
    """Whether a batch's rows are those of the whole data set, or 0, 1, ... of its own images."""

    def iterate(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pixels for each `index_B` (B,) on the CPU, on the training device."""
        ...

    def close(self) -> None:
        """Let go of whatever is held."""
        ...


def pixel_source(
    data: Images, batch_size: int, device: torch.device | str, *, channels_last: bool, border: bool
) -> PixelSource:
    """The source for a data set; `border` adds the one that crops need."""
    if isinstance(data, StreamedImages):
        return _FromFiles(ImageStream(data, batch_size, device), channels_last, border)
    if fits_on_device(data.images, device):
        return _InMemory(as_pixels(data.images.to(device), channels_last=channels_last, border=border))
    return _OnHost(as_pixels(data.images, channels_last=channels_last, border=border), device)


def images_in_order(
    data: Images, parts: Sequence[slice], batch_size: int, device: torch.device | str
) -> Iterator[Tensor]:
    """The images (B, channels, H, W) uint8 of each part of the data set, of at most `batch_size`, on the device."""
    if isinstance(data, LabeledImages):
        yield from (to_device(data.images[part], device) for part in parts)
        return
    with closing(ImageStream(data, batch_size, device)) as stream:
        for images_BHWC in stream.batches(torch.arange(part.start, part.stop) for part in parts):
            yield as_images(images_BHWC.unsqueeze(1))


def fits_on_device(images: Tensor, device: torch.device | str) -> bool:
    """Whether half of what a GPU has left is enough for the images while their border is added: four times their size.

    What is in memory fits a CPU.
    """
    if torch.device(device).type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return 4 * images.numel() <= free // 2


class _InMemory:
    holds_all = True

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels

    def iterate(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        for _ in indices:
            yield self._pixels

    def close(self) -> None: ...


class _OnHost:
    """Pixels that are too many for the GPU: each batch is looked up in the host's memory and sent there."""

    holds_all = False

    def __init__(self, pixels: Tensor, device: torch.device | str) -> None:
        self._pixels, self._device = pixels, device

    def iterate(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        for index_B in indices:
            some_B = index_B if len(index_B) else index_B.new_zeros(1)  # as in `_FromFiles`
            yield to_device(self._pixels.index_select(0, some_B), self._device)

    def close(self) -> None: ...


class _FromFiles:
    holds_all = False

    def __init__(self, stream: ImageStream, channels_last: bool, border: bool) -> None:
        self._stream, self._channels_last, self._border = stream, channels_last, border

    def iterate(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        for images_BHWC in self._stream.batches(indices):
            # Crops are cut from one run of memory, which must not be empty where no image is asked for.
            some = images_BHWC if len(images_BHWC) else images_BHWC.new_zeros((1, *images_BHWC.shape[1:]))
            yield as_pixels(some.permute(0, 3, 1, 2), channels_last=self._channels_last, border=self._border)

    def close(self) -> None:
        self._stream.close()
