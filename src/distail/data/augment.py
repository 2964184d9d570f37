"""Augmentation of whole batches: drawn on the CPU as integers, applied on the images' device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distail.data.seeding import random_bits, stream_key
from distail.errors import DataError, unknown_name

MAX_ROTATION_DEGREES = 15.0
_BITS = 32


def crop_padding(height: int, width: int) -> tuple[int, int]:
    """Pixels of black border at top and bottom, and at left and right, before a crop: 4 for a side of 32.

    >>> crop_padding(32, 64), crop_padding(8, 4)
    ((4, 8), (1, 1))
    """
    return max(1, height // 8), max(1, width // 8)


def padded_for_crop(images_BCHW: Tensor) -> Tensor:
    """The images with the border that ``crop_windows`` cuts from."""
    pad_y, pad_x = crop_padding(*images_BCHW.shape[-2:])
    return F.pad(images_BCHW, (pad_x, pad_x, pad_y, pad_y))


def crop_windows(padded_NCHW: Tensor, rows_B: Tensor, bits_B2: Tensor, height: int, width: int) -> Tensor:
    """Windows (B, channels, height, width) of the named rows, each at its drawn offset."""
    windows = padded_NCHW.unfold(2, height, 1).unfold(3, width, 1)
    offset_y_B = _scaled(bits_B2[:, 0], windows.shape[2])
    offset_x_B = _scaled(bits_B2[:, 1], windows.shape[3])
    return windows[rows_B, :, offset_y_B, offset_x_B]


def _crop(images_BCHW: Tensor, bits_B2: Tensor) -> Tensor:
    rows_B = torch.arange(len(images_BCHW), device=images_BCHW.device)
    return crop_windows(padded_for_crop(images_BCHW), rows_B, bits_B2, *images_BCHW.shape[-2:])


def _flip(images_BCHW: Tensor, bits_B1: Tensor) -> Tensor:
    flipped_B = (bits_B1[:, 0] >> (_BITS - 1)).bool()
    return torch.where(flipped_B[:, None, None, None], images_BCHW.flip(-1), images_BCHW)


def _rotate(images_BCHW: Tensor, bits_B1: Tensor) -> Tensor:
    """About the centre by up to 15 degrees, nearest pixel, black outside: torchvision's RandomRotation(15) of DR-KD."""
    height, width = images_BCHW.shape[-2:]
    degrees_B = (bits_B1[:, 0].double() * 2.0**-_BITS * 2 - 1) * MAX_ROTATION_DEGREES
    angle_B = degrees_B * (math.pi / 180)
    cosine_B, sine_B = torch.cos(angle_B).float(), torch.sin(angle_B).float()
    zero_B = torch.zeros_like(cosine_B)
    # grid_sample's axes run from -1 to 1 over each side, so the off-diagonal terms carry the ratio of the sides.
    to_source_B23 = torch.stack(
        [cosine_B, -sine_B * (height / width), zero_B, sine_B * (width / height), cosine_B, zero_B], dim=1
    ).view(-1, 2, 3)
    grid_BHW2 = F.affine_grid(to_source_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW.float(), grid_BHW2, mode="nearest", align_corners=False).to(torch.uint8)


@dataclass(frozen=True)
class Augmentation:
    """``apply(images_BCHW, bits_Bk)`` reads ``columns`` random 32-bit integers a sample and returns uint8 images."""

    columns: int
    apply: Callable[[Tensor, Tensor], Tensor]


AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": Augmentation(2, _crop),
    "flip": Augmentation(1, _flip),
    "rotate": Augmentation(1, _rotate),
}


@dataclass(frozen=True)
class Draws:
    """What each sample of a batch draws: 32-bit integers ``bits`` (B, K) int64, the columns of ``names`` side by side.

    Slicing takes a part of the batch; integers give the same crops and flips on every device.
    """

    names: tuple[str, ...]
    bits: Tensor

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, part: slice) -> Draws:
        return Draws(self.names, self.bits[part])

    def to(self, device: torch.device | str) -> Draws:
        """On another device; from pinned memory to a GPU, so that the host does not wait."""
        if torch.device(device).type == "cuda":
            return Draws(self.names, self.bits.pin_memory().to(device, non_blocking=True))
        return Draws(self.names, self.bits.to(device))

    def of(self, name: str) -> Tensor:
        """The columns (B, k) of one augmentation."""
        first = sum(AUGMENTATIONS[before].columns for before in self.names[: self.names.index(name)])
        return self.bits[:, first : first + AUGMENTATIONS[name].columns]


def augmentation_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names in the order in which they are applied (that of ``AUGMENTATIONS``), checked.

    >>> augmentation_names(["flip", "crop"])
    ('crop', 'flip')
    """
    if isinstance(names, str):
        raise DataError(f"augment is {names!r}; expected a list of names, such as [crop, flip]")
    for name in names:
        if name not in AUGMENTATIONS:
            raise DataError(unknown_name("augmentation", name, AUGMENTATIONS))
    if len(set(names)) != len(names):
        raise DataError(f"augment names one augmentation twice: {', '.join(names)}")
    return tuple(name for name in AUGMENTATIONS if name in names)


def draw_augmentation(names: Sequence[str], batch_size: int, seed: int, epoch: int, step: int) -> Draws:
    """The draws of one global batch, a pure function of (seed, epoch, step); ``draws[a:b]`` is a rank's part.

    An augmentation's draws do not depend on which others are named. Raises ``DataError`` for unknown names.

    >>> draws = draw_augmentation(["crop", "flip"], 8, seed=0, epoch=1, step=2)
    >>> len(draws), len(draws[2:5])
    (8, 3)
    """
    return _drawn(names, (seed, epoch, step), "step", np.arange(batch_size))


def draw_views(names: Sequence[str], index_B: Tensor, view_B: Tensor | int, seed: int) -> Draws:
    """The draws of view ``view_B`` of sample ``index_B``: pure in (seed, sample, view).

    >>> one = draw_views(["crop"], torch.tensor([7, 3]), 1, seed=0)
    >>> other = draw_views(["crop"], torch.tensor([3]), torch.tensor([1]), seed=0)
    >>> torch.equal(one.bits[1:], other.bits)
    True
    """
    views = np.asarray(view_B.cpu() if isinstance(view_B, Tensor) else view_B)
    return _drawn(names, (seed,), "view", *np.broadcast_arrays(index_B.cpu().numpy(), views))


def apply_augmentation(images_BCHW: Tensor, draws: Draws) -> Tensor:
    """The images (B, channels, H, W) uint8 with their draws applied, on the images' device: uint8, the same shape.

    Raises ``DataError`` where the lengths differ.

    >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> apply_augmentation(images, draw_augmentation(["crop", "flip"], 2, 0, 0, 0)).shape
    torch.Size([2, 3, 8, 8])
    """
    if len(images_BCHW) != len(draws):
        raise DataError(f"{len(images_BCHW)} images but draws for {len(draws)}")
    return apply_named(images_BCHW, draws.to(images_BCHW.device), draws.names)


def apply_named(images_BCHW: Tensor, draws: Draws, names: Sequence[str]) -> Tensor:
    """Some of the drawn augmentations; images and draws lie on one device."""
    for name in names:
        images_BCHW = AUGMENTATIONS[name].apply(images_BCHW, draws.of(name))
    return images_BCHW


def normalise(
    images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """``(images / 255 - mean) / std`` by channel, as floating point of the same shape and memory format.

    ``mean`` and ``std`` are in units of 0 to 1. Raises ``DataError`` where their lengths differ from the channels.

    >>> normalise(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), mean=[0.5], std=[0.25]).item()
    2.0
    """
    channels = images_BCHW.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise DataError(f"images of {channels} channels, but {len(mean)} means and {len(std)} deviations")
    shift = torch.tensor([m * 255 for m in mean], device=images_BCHW.device).view(1, -1, 1, 1)
    scale = torch.tensor([1 / (255 * s) for s in std], device=images_BCHW.device).view(1, -1, 1, 1)
    return images_BCHW.float().sub_(shift).mul_(scale).to(dtype)


def _drawn(names: Sequence[str], numbers: tuple[int, ...], purpose: str, *coordinates: np.ndarray) -> Draws:
    names = augmentation_names(names)
    columns = [
        random_bits(stream_key(f"{purpose}-{name}", *numbers), *coordinates, np.asarray(column))
        >> np.uint64(64 - _BITS)
        for name in names
        for column in range(AUGMENTATIONS[name].columns)
    ]
    bits_BK = np.stack(columns, axis=1) if columns else np.zeros((len(coordinates[0]), 0))
    return Draws(names, torch.from_numpy(bits_BK.astype(np.int64)))


def _scaled(bits_B: Tensor, choices: int) -> Tensor:
    """32-bit integers mapped evenly to 0 ... choices - 1, exactly."""
    return (bits_B * choices) >> _BITS
