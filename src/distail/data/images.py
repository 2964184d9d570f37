"""A data set in memory, one uint8 tensor of images and one tensor of labels; and what a source gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distail.data.streamed import StreamedImages
from distail.errors import DataError


@dataclass(frozen=True)
class LabelledImages:
    """``images`` (N, channels, H, W) uint8 and ``labels`` (N,) int64, row by row.

    ``digests`` (N, 32) uint8 is the SHA-256 of each image's file, None where images did not come from files of their
    own. Raises ``DataError`` where shapes, types or lengths do not fit.

    >>> data = LabelledImages(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    >>> len(data), data.subset(torch.tensor([3, 1])).labels.tolist()
    (4, [0, 1])
    """

    images: Tensor
    labels: Tensor
    digests: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise DataError(
                f"images are {self.images.dtype} {tuple(self.images.shape)}; expected uint8 (N, channels, H, W)"
            )
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise DataError(f"labels are {self.labels.dtype} {tuple(self.labels.shape)}; expected int64 (N,)")
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")
        if self.digests is not None and (self.digests.dtype, *self.digests.shape) != (torch.uint8, len(self), 32):
            raise DataError(
                f"digests are {self.digests.dtype} {tuple(self.digests.shape)}; expected uint8 ({len(self)}, 32)"
            )
        object.__setattr__(self, "images", self.images.contiguous())
        object.__setattr__(self, "labels", self.labels.contiguous())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, index: Tensor) -> LabelledImages:
        """The rows named by ``index`` (M,) int64, in that order."""
        digests = None if self.digests is None else self.digests[index]
        return LabelledImages(self.images[index], self.labels[index], digests)

    def to(self, device: torch.device | str) -> LabelledImages:
        """On another device; the same tensors where they are there already."""
        return LabelledImages(self.images.to(device), self.labels.to(device), self.digests)

    def level_sums(self) -> tuple[Tensor, Tensor]:
        """Exact sums (channels,) int64 of all grey levels of a channel, and of their squares."""
        levels = torch.arange(256)
        histograms = [
            torch.bincount(self.images[:, channel].flatten(), minlength=256) for channel in range(self.image_shape[0])
        ]
        sums = torch.stack([(histogram * levels).sum() for histogram in histograms])
        return sums, torch.stack([(histogram * levels**2).sum() for histogram in histograms])


Images = LabelledImages | StreamedImages


@dataclass(frozen=True)
class Source:
    """A data set as found on disk: labels index ``class_names``; ``skipped`` lists images that could not be read.

    ``notes`` are sentences for the user about how it is held.
    """

    train: Images
    test: Images
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
