"""A data set in memory: one uint8 tensor of images and one tensor of labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distail.errors import DataError


@dataclass(frozen=True)
class LabelledImages:
    """``images`` (N, channels, H, W) uint8 and ``labels`` (N,) int64, row by row.

    Raises ``DataError`` where shapes, types or lengths do not fit.

    >>> data = LabelledImages(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    >>> len(data), data.subset(torch.tensor([3, 1])).labels.tolist()
    (4, [0, 1])
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise DataError(
                f"images are {self.images.dtype} {tuple(self.images.shape)}; expected uint8 (N, channels, H, W)"
            )
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise DataError(f"labels are {self.labels.dtype} {tuple(self.labels.shape)}; expected int64 (N,)")
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")
        object.__setattr__(self, "images", self.images.contiguous())
        object.__setattr__(self, "labels", self.labels.contiguous())

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> LabelledImages:
        """The rows named by ``index`` (M,) int64, in that order."""
        return LabelledImages(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> LabelledImages:
        """On another device; the same tensors where they are there already."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Source:
    """A data set as found on disk: labels index ``class_names``; ``skipped`` lists images that could not be read."""

    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
