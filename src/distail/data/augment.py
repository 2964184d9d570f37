"""Augmentation of whole batches: drawn on the CPU as integers, applied on the images' device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.normalisation import normalise as normalise
from distail.data.seeding import random_bits, stream_key
from distail.data.transforms import BITS, crop, flip, rotate
from distail.errors import DataError, unknown_name
from distail.torch_utils import moved


@dataclass(frozen=True)
class Augmentation:
    """``apply(images_BCHW, bits_Bk)`` reads ``columns`` random 32-bit integers a sample and returns uint8 images."""

    columns: int
    apply: Callable[[Tensor, Tensor], Tensor]


AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": Augmentation(2, crop),
    "flip": Augmentation(1, flip),
    "rotate": Augmentation(1, rotate),
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
        """On another device, without a wait."""
        return Draws(self.names, moved(self.bits, device))

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
    return _drawn(names, "step", (seed, epoch, step), np.arange(batch_size))


def draw_views(names: Sequence[str], index_B: Tensor, view_B: Tensor | int, seed: int) -> Draws:
    """The draws of view ``view_B`` of sample ``index_B``: a pure function of (seed, sample, view), whatever the batch.

    >>> both = draw_views(["crop"], torch.tensor([7, 3]), 1, seed=0)
    >>> alone = draw_views(["crop"], torch.tensor([3]), torch.tensor([1]), seed=0)
    >>> torch.equal(both.bits[1:], alone.bits)
    True
    """
    views = np.asarray(view_B.cpu() if isinstance(view_B, Tensor) else view_B)
    return _drawn(names, "view", (seed,), *np.broadcast_arrays(index_B.cpu().numpy(), views))


def apply_augmentation(images_BCHW: Tensor, draws: Draws) -> Tensor:
    """The images (B, channels, H, W) uint8 with their draws applied, on the images' device: uint8, the same shape.

    Raises ``DataError`` where the lengths differ.

    >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> apply_augmentation(images, draw_augmentation(["crop", "flip"], 2, 0, 0, 0)).shape
    torch.Size([2, 3, 8, 8])
    """
    if len(images_BCHW) != len(draws):
        raise DataError(f"{len(images_BCHW)} images but draws for {len(draws)}")
    if not len(images_BCHW):
        return images_BCHW
    return apply_named(images_BCHW, draws.to(images_BCHW.device), draws.names)


def apply_named(images_BCHW: Tensor, draws: Draws, names: Sequence[str]) -> Tensor:
    """Some of the drawn augmentations; images and draws lie on one device."""
    for name in names:
        images_BCHW = AUGMENTATIONS[name].apply(images_BCHW, draws.of(name))
    return images_BCHW


def _drawn(names: Sequence[str], purpose: str, numbers: tuple[int, ...], *coordinates: NDArray[np.int64]) -> Draws:
    names = augmentation_names(names)
    points = [coordinate[:, None] for coordinate in coordinates]
    bits = [
        random_bits(stream_key(f"{purpose}-{name}", *numbers), *points, np.arange(AUGMENTATIONS[name].columns))
        for name in names
    ]
    together = np.concatenate(bits, axis=1) if bits else np.empty((len(coordinates[0]), 0), dtype=np.uint64)
    return Draws(names, torch.from_numpy((together >> np.uint64(64 - BITS)).astype(np.int64)))
