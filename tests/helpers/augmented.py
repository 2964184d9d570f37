"""What the batches do to images, in two plain steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.config.augment import Augment
from distail.data.augment import Draws, apply_drawn, draw_augmentation, draw_views, in_order
from distail.data.normalize import Normalize


def augmented(images: Tensor, draws: Draws) -> Tensor:
    return apply_drawn(images, draws, in_order(list(draws.bits))) if len(images) else images


def drawn(augment: Sequence[Augment], batch_size: int, seed: int, epoch: int, step: int) -> Draws:
    return draw_augmentation(in_order(augment), batch_size, seed, epoch, step)


def drawn_views(augment: Sequence[Augment], index: Tensor, view: Tensor | int, seed: int) -> Draws:
    return draw_views(in_order(augment), index, view, seed)


def normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return Normalize(mean, std)(images)


def all_bits(draws: Draws) -> Tensor:
    return torch.cat(list(draws.bits.values()), dim=1)
