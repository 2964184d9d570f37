"""Augmentation of whole batches: drawn on the CPU as integers, applied on the images' device.

Shapes: B batch, N images, C channels, H height, W width; k columns of one augmentation.
Pixels are (N, planes P, H, W, unit U): a plane of single numbers for each channel (U 1), or one plane whose units are
all channels of a pixel (channels_last).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distail.config import augment as config
from distail.data import boxes, policies
from distail.data.seeding import random_bits, stream_key
from distail.errors import DataError, did_you_mean
from distail.torch_utils import to_device

MAX_ROTATION_DEGREES = 15.0
BITS = 32


def crop_padding(height: int, width: int) -> tuple[int, int]:
    """Pixels of black border at top and bottom, and at left and right, before a crop: an eighth, 4 for a side of 32.

    >>> crop_padding(32, 64), crop_padding(8, 4)
    ((4, 8), (1, 1))
    """
    return max(1, height // 8), max(1, width // 8)


def as_pixels(images_NCHW: Tensor, *, channels_last: bool, border: bool) -> Tensor:
    """The images as (N, planes, H, W, unit), with the border that a crop needs if asked for."""
    if border:
        pad_y, pad_x = crop_padding(*images_NCHW.shape[-2:])
        images_NCHW = F.pad(images_NCHW, (pad_x, pad_x, pad_y, pad_y))
    if channels_last:
        return images_NCHW.permute(0, 2, 3, 1).contiguous().unsqueeze(1)
    return images_NCHW.contiguous().unsqueeze(-1)


def as_images(pixels_NPHWU: Tensor) -> Tensor:
    """Pixels seen as images (N, channels, H, W) again: contiguous, or channels_last; nothing is copied."""
    if pixels_NPHWU.shape[-1] == 1:
        return pixels_NPHWU.squeeze(-1)
    return pixels_NPHWU.squeeze(1).permute(0, 3, 1, 2)


def crop_pixels(pixels_NPHWU: Tensor, rows_B: Tensor, bits_B2: Tensor, height: int, width: int) -> Tensor:
    """Windows (B, planes, height, width, unit) of the named rows, each at its drawn offset."""
    _, planes, full_height, full_width, unit = pixels_NPHWU.shape
    top_B = scaled(bits_B2[:, 0], full_height - height + 1)
    left_B = scaled(bits_B2[:, 1], full_width - width + 1)
    line = full_width * unit
    first_B = rows_B * (planes * full_height * line) + top_B * line + left_B * unit
    plane_P = torch.arange(planes, device=rows_B.device) * (full_height * line)
    line_H = torch.arange(height, device=rows_B.device) * line
    starts = (first_B[:, None, None] + plane_P[:, None] + line_H).flatten()
    runs = pixels_NPHWU.view(-1).unfold(0, width * unit, 1).index_select(0, starts)
    return runs.view(len(rows_B), planes, height, width, unit)


def crop(images_BCHW: Tensor, bits_B2: Tensor) -> Tensor:
    """A window of the images' own size from the images within a black border of an eighth of their side."""
    rows_B = torch.arange(len(images_BCHW), device=images_BCHW.device)
    pixels = as_pixels(images_BCHW, channels_last=False, border=True)
    return as_images(crop_pixels(pixels, rows_B, bits_B2, *images_BCHW.shape[-2:]))


def flip(images_BCHW: Tensor, bits_B1: Tensor) -> Tensor:
    """Left for right, for one image in two."""
    size = len(images_BCHW)
    rows_B = torch.arange(size, device=images_BCHW.device) + scaled(bits_B1[:, 0], 2) * size
    # Copying whole images is many times faster than torch.where with one condition an image.
    if images_BCHW.is_contiguous():
        return torch.cat([images_BCHW, images_BCHW.flip(-1)]).index_select(0, rows_B)
    images_BHWC = images_BCHW.permute(0, 2, 3, 1)
    return torch.cat([images_BHWC, images_BHWC.flip(2)]).index_select(0, rows_B).permute(0, 3, 1, 2)


def rotate(images_BCHW: Tensor, bits_B1: Tensor) -> Tensor:
    """About the center by up to 15 degrees, nearest pixel, black outside: torchvision's RandomRotation(15) of DR-KD."""
    if not len(images_BCHW):
        return images_BCHW  # affine_grid takes no empty batch
    height, width = images_BCHW.shape[-2:]
    degrees_B = (bits_B1[:, 0].float() * 2.0**-BITS * 2 - 1) * MAX_ROTATION_DEGREES
    angle_B = degrees_B * (math.pi / 180)
    cosine_B, sine_B = torch.cos(angle_B), torch.sin(angle_B)
    zero_B = torch.zeros_like(cosine_B)
    # grid_sample's axes run from -1 to 1 over each side, so the off-diagonal terms carry the ratio of the sides.
    to_source_B23 = torch.stack(
        [cosine_B, -sine_B * (height / width), zero_B, sine_B * (width / height), cosine_B, zero_B], dim=1
    ).view(-1, 2, 3)
    grid_BHW2 = F.affine_grid(to_source_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW.float(), grid_BHW2, mode="nearest", align_corners=False).to(torch.uint8)


def scaled(bits_B: Tensor, choices: int) -> Tensor:
    """32-bit integers mapped evenly to 0 ... choices - 1, exactly and alike on every device.

    >>> scaled(torch.tensor([0, 2**31 - 1, 2**31, 2**32 - 1]), 2).tolist()
    [0, 0, 1, 1]
    """
    return (bits_B * choices) >> BITS


@dataclass(frozen=True)
class Augmentation:
    """What an entry of `data.augment` does.

    Attributes:
        columns: random 32-bit integers that each sample draws.
        apply: images (B, C, H, W) on their device and (B, k) int64 integers on the CPU to new images.
        normalized: whether it wants normalized images, in floats, which it changes in place; else it gets and gives
            uint8.
    """

    columns: int
    apply: Callable[[Tensor, Tensor], Tensor]
    normalized: bool = False


def augmentation_of(entry: config.Augment) -> Augmentation:
    """The augmentation that an entry names, with its parameters or their defaults.

    Raises:
        DataError: there is none of this name.
    """
    name = config.augment_name(entry)
    if name not in config.AUGMENTATIONS:
        raise DataError(f"augment: {name!r} is not valid. {did_you_mean(name, config.AUGMENTATIONS)}")
    options: Any = config.AUGMENTATIONS[name].model_validate({"name": name}) if isinstance(entry, str) else entry
    return _BUILDERS[name](options)


def _on_device(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, bits: change(images, to_device(bits, images.device))


def _from_host(change: Callable[..., Tensor], **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """For what decides on the host, by the integers as numpy has them."""
    return lambda images, bits: change(images, bits.numpy(), **options)


_BUILDERS: dict[str, Callable[[Any], Augmentation]] = {
    "crop": lambda _: Augmentation(2, _on_device(crop)),
    "flip": lambda _: Augmentation(1, _on_device(flip)),
    "rotate": lambda _: Augmentation(1, _on_device(rotate)),
    "auto_augment": lambda _: Augmentation(policies.AUTO_COLUMNS, _from_host(policies.auto_augment)),
    "trivial_augment": lambda _: Augmentation(policies.TRIVIAL_COLUMNS, _from_host(policies.trivial_augment)),
    "rand_augment": lambda options: Augmentation(
        policies.rand_columns(options), _from_host(policies.rand_augment, options=options)
    ),
    "color_jitter": lambda options: Augmentation(
        policies.JITTER_COLUMNS, _from_host(policies.color_jitter, options=options)
    ),
    "random_resized_crop": lambda options: Augmentation(
        boxes.CROP_COLUMNS, _from_host(boxes.random_resized_crop, options=options)
    ),
    "cutout": lambda options: Augmentation(
        boxes.CUTOUT_COLUMNS, _from_host(boxes.cutout, options=options), normalized=True
    ),
    "random_erasing": lambda options: Augmentation(
        boxes.ERASING_COLUMNS, _from_host(boxes.random_erasing, options=options), normalized=True
    ),
}


@dataclass(frozen=True)
class Draws:
    """What each sample of a batch draws: of every augmentation named, integers (B, k) int64 on the CPU.

    A slice, or places (int64), take a part of the batch; integers give the same crops and flips on every device.
    """

    size: int
    bits: Mapping[str, Tensor]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice | Tensor) -> Draws:
        size = len(part) if isinstance(part, Tensor) else len(range(self.size)[part])
        return Draws(size, {name: bits[part] for name, bits in self.bits.items()})


def joined(several: Sequence[Draws]) -> Draws:
    """The draws of several batches as those of one.

    >>> one = Draws(2, {"flip": torch.tensor([[1], [2]])})
    >>> joined([one, one]).bits["flip"].flatten().tolist()
    [1, 2, 1, 2]
    """
    names = several[0].bits
    return Draws(sum(map(len, several)), {name: torch.cat([draws.bits[name] for draws in several]) for name in names})


def in_order(entries: Sequence[config.Augment]) -> dict[str, Augmentation]:
    """The augmentations by name, checked, in the order in which they are applied (that of `config.AUGMENTATIONS`).

    Raises:
        DataError: a name is unknown, or given twice.

    >>> list(in_order(["flip", "crop"]))
    ['crop', 'flip']
    """
    if isinstance(entries, str):
        raise DataError(f"augment is {entries!r}; expected a list of names, such as [crop, flip]")
    found = [(config.augment_name(entry), augmentation_of(entry)) for entry in entries]
    names = [name for name, _ in found]
    if len(set(names)) != len(names):
        raise DataError(f"augment names one augmentation twice: {', '.join(names)}")
    return dict(sorted(found, key=lambda pair: list(config.AUGMENTATIONS).index(pair[0])))


def draw_augmentation(
    augmentations: Mapping[str, Augmentation], batch_size: int, seed: int, epoch: int, step: int
) -> Draws:
    """The draws of one global batch, a pure function of (seed, epoch, step); `draws[a:b]` is a rank's part.

    An augmentation's draws do not depend on which others are named.

    >>> draws = draw_augmentation(in_order(["crop", "flip"]), 8, seed=0, epoch=1, step=2)
    >>> len(draws), len(draws[2:5])
    (8, 3)
    """
    return _drawn(augmentations, "step", (seed, epoch, step), np.arange(batch_size))


def draw_views(augmentations: Mapping[str, Augmentation], index_B: Tensor, view_B: Tensor | int, seed: int) -> Draws:
    """The draws of view `view_B` of sample `index_B`: a pure function of (seed, sample, view), whatever the batch.

    >>> both = draw_views(in_order(["crop"]), torch.tensor([7, 3]), 1, seed=0)
    >>> alone = draw_views(in_order(["crop"]), torch.tensor([3]), torch.tensor([1]), seed=0)
    >>> torch.equal(both.bits["crop"][1:], alone.bits["crop"])
    True
    """
    views = np.asarray(view_B.cpu() if isinstance(view_B, Tensor) else view_B)
    return _drawn(augmentations, "view", (seed,), *np.broadcast_arrays(index_B.cpu().numpy(), views))


def apply_drawn(images_BCHW: Tensor, draws: Draws, augmentations: Mapping[str, Augmentation]) -> Tensor:
    """Some of the drawn augmentations, one after the other."""
    for name, augmentation in augmentations.items():
        images_BCHW = augmentation.apply(images_BCHW, draws.bits[name])
    return images_BCHW


def _drawn(
    augmentations: Mapping[str, Augmentation],
    purpose: str,
    numbers: tuple[int, ...],
    *coordinates: NDArray[np.int64],
) -> Draws:
    points = [coordinate[:, None] for coordinate in coordinates]
    bits = {
        name: random_bits(stream_key(f"{purpose}-{name}", *numbers), *points, np.arange(augmentation.columns))
        for name, augmentation in augmentations.items()
    }
    whole = {name: torch.from_numpy((some >> np.uint64(64 - BITS)).astype(np.int64)) for name, some in bits.items()}
    return Draws(len(coordinates[0]), whole)
