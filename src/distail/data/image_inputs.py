"""Images of a batch as the network gets them: looked up or decoded, cropped, augmented and normalized.

Shapes: B batch, C channels, H height, W width; pixels as in `distail.data.augment`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import tee

import torch
from torch import Tensor

from distail.config.augment import POLICIES, Augment, Cutout, augment_name
from distail.data.augment import Augmentation, Draws, apply_drawn, as_images, crop_pixels, in_order, joined
from distail.data.boxes import cutout_length
from distail.data.dataset import Examples, Images, is_images
from distail.data.normalize import Normalize
from distail.data.pixels import images_in_order, pixel_source
from distail.errors import DataError
from distail.torch_utils import to_device

_MOST_AT_ONCE = 2**24  # numbers in the images of several batches, 64 MB of them: 42 batches of 128 images of 32 pixels


def check_augment(entries: Sequence[Augment], data: Examples) -> None:
    """Let pass what leaves something of these images; examples that are no images have nothing to erase.

    Raises:
        DataError: the square of `cutout` is as large as an image.
    """
    if not is_images(data):
        return
    _, height, width = data.image_shape
    shorter = min(height, width)
    for entry in entries:
        if augment_name(entry) != "cutout":
            continue
        length = cutout_length(entry if isinstance(entry, Cutout) else Cutout(), height, width)
        if length >= shorter:
            fitting = f"fewer than {shorter}, such as {shorter // 2}" if shorter > 1 else "no cutout"
            raise DataError(
                f"data.augment: cutout with length {length} would erase most or all of images of {height} x {width} "
                f"pixels; expected {fitting}"
            )


def augment_notes(entries: Sequence[Augment]) -> list[str]:
    """What to tell the user of entries that go together, but rarely do.

    >>> augment_notes(["crop", "auto_augment", "trivial_augment"])
    ['data.augment: auto_augment and trivial_augment are both augmentation policies; papers use one of them']
    """
    policies = [name for entry in entries if (name := augment_name(entry)) in POLICIES]
    if len(policies) < 2:
        return []
    return [f"data.augment: {' and '.join(policies)} are both augmentation policies; papers use one of them"]


class ImageInputs:
    """Images (B, C, H, W) of one training batch after another, on the training device.

    `batch_size` is the most that are wanted at once. Batches of images in memory are made together until they are
    `at_once` images; None: as many as are fast on the device.
    """

    def __init__(
        self,
        data: Images,
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Sequence[Augment],
        device: torch.device | str,
        channels_last: bool,
        at_once: int | None = None,
    ) -> None:
        self.augmentations: Mapping[str, Augmentation] = in_order(augment)
        self._crops = "crop" in self.augmentations
        after_crop = {name: each for name, each in self.augmentations.items() if name != "crop"}
        self._before = {name: each for name, each in after_crop.items() if not each.normalized}
        self._after = {name: each for name, each in after_crop.items() if each.normalized}
        _, self._height, self._width = data.image_shape
        self._source = pixel_source(data, batch_size, device, channels_last=channels_last, border=self._crops)
        self._normalize = Normalize(mean, std, device)
        self._device = torch.device(device)
        self._at_once = 0  # images
        if self._source.holds_all and (at_once is not None or self._device.type == "cuda"):
            self._at_once = _MOST_AT_ONCE // math.prod(data.image_shape) if at_once is None else at_once

    def batches(self, wanted: Iterable[tuple[Tensor, Draws]]) -> Iterator[tuple[Tensor, Tensor]]:
        if self._at_once:
            yield from self._several(wanted)
            return
        ahead, here = tee(wanted)
        for (index, draws), pixels in zip(here, self._source.iterate(index for index, _ in ahead), strict=True):
            yield self._images(index, draws, pixels)

    def _several(self, wanted: Iterable[tuple[Tensor, Draws]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The same batches, several made at once: an operation on a few images costs a GPU's host as much."""
        left = iter(wanted)
        while some := self._next_few(left):
            index = torch.cat([index for index, _ in some])
            [pixels] = self._source.iterate([index])
            made = self._images(index, joined([draws for _, draws in some]), pixels)
            sizes = [len(index) for index, _ in some]
            yield from zip(*(torch.split(each, sizes) for each in made), strict=True)

    def _next_few(self, left: Iterator[tuple[Tensor, Draws]]) -> list[tuple[Tensor, Draws]]:
        some: list[tuple[Tensor, Draws]] = []
        images = 0
        while images < self._at_once and (one := next(left, None)) is not None:
            some.append(one)
            images += len(one[0])
        return some

    def _images(self, index: Tensor, draws: Draws, pixels: Tensor) -> tuple[Tensor, Tensor]:
        index_B = to_device(index, self._device)
        rows_B = index_B if self._source.holds_all else torch.arange(len(index_B), device=self._device)
        images = as_images(self._windows(pixels, rows_B, draws))
        images = self._normalize(apply_drawn(images, draws, self._before))
        return index_B, apply_drawn(images, draws, self._after)

    def close(self) -> None:
        """End the processes that decode, if there are any."""
        self._source.close()

    def _windows(self, pixels: Tensor, rows_B: Tensor, draws: Draws) -> Tensor:
        if self._crops:
            bits_B2 = to_device(draws.bits["crop"], self._device)
            return crop_pixels(pixels, rows_B, bits_B2, self._height, self._width)
        return pixels.index_select(0, rows_B)


def normalized_in_order(
    data: Images,
    parts: Sequence[slice],
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
    *,
    channels_last: bool,
) -> Iterator[Tensor]:
    """The images (B, C, H, W) of each part of the data, of at most `batch_size`, normalized, on the device."""
    normalize = Normalize(mean, std, device)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for images in images_in_order(data, parts, batch_size, device):
        yield normalize(images.contiguous(memory_format=memory_format))
