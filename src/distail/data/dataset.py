"""A data set, in memory or as files that are decoded batch by batch; what a source gives; and images resized.

Shapes: N images, M rows of a subset, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distail.data.arrays import LabeledArrays
from distail.data.items import StreamedItems
from distail.data.labels import check_labels
from distail.data.workers import DecodeFiles
from distail.errors import DataError

_CHUNK = 4096


@dataclass(frozen=True)
class StreamedImages:
    """N image files that have all been decoded once and are decoded again, batch by batch, by worker processes.

    `names` (N,) bytes, relative to the folder of `decode`; `labels` (N,) int64 or (N, C) bool; `digests`
    (N, 32) uint8, the SHA-256 of each file; `sums` and `squares` (N, channels) int64, of each image's gray levels and
    of their squares. About 200 bytes per image, whatever its size. `workers` processes decode; 0: none but this one.
    """

    names: NDArray[np.bytes_]
    labels: Tensor
    digests: Tensor
    sums: Tensor
    squares: Tensor
    decode: DecodeFiles
    workers: int
    noun: ClassVar[str] = "image"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return self.image_shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every decoded image."""
        return self.decode.image_shape

    def contents(self) -> NDArray[np.uint8]:
        """(N, 32): the SHA-256 of each image's file."""
        return self.digests.numpy()

    def subset(self, index: Tensor) -> StreamedImages:
        """The rows named by `index` (M,) int64, in that order."""
        return replace(
            self,
            names=self.names[index.numpy()],
            labels=self.labels[index],
            digests=self.digests[index],
            sums=self.sums[index],
            squares=self.squares[index],
        )

    def level_sums(self) -> tuple[Tensor, Tensor]:
        """Exact sums (channels,) int64 of all gray levels of a channel, and of their squares."""
        return self.sums.sum(0), self.squares.sum(0)


@dataclass(frozen=True)
class LabeledImages:
    """`images` (N, channels, H, W) uint8 and `labels` (N,) int64 or (N, C) bool, row by row.

    `digests` (N, 32) uint8 is the SHA-256 of each image's file, None where images did not come from files of their
    own. `names` (N,) bytes is what each is called on disk, None where they have no names.

    Raises:
        DataError: shapes, types or lengths do not fit.

    >>> data = LabeledImages(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    >>> len(data), data.subset(torch.tensor([3, 1])).labels.tolist()
    (4, [0, 1])
    """

    images: Tensor
    labels: Tensor
    digests: Tensor | None = None
    names: NDArray[np.bytes_] | None = None
    noun: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise DataError(
                f"images are {self.images.dtype} {tuple(self.images.shape)}; expected uint8 (N, channels, H, W)"
            )
        if self.labels.ndim and len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")
        check_labels(self.labels, len(self.images))
        if self.digests is not None and (self.digests.dtype, *self.digests.shape) != (torch.uint8, len(self), 32):
            raise DataError(
                f"digests are {self.digests.dtype} {tuple(self.digests.shape)}; expected uint8 ({len(self)}, 32)"
            )
        if self.names is not None and len(self.names) != len(self):
            raise DataError(f"{len(self.names)} names but {len(self)} images")
        object.__setattr__(self, "images", self.images.contiguous())
        object.__setattr__(self, "labels", self.labels.contiguous())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return self.image_shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def contents(self) -> NDArray[np.uint8]:
        """(N, 32): the SHA-256 of each image's file, or of its pixels where it had no file of its own."""
        if self.digests is not None:
            return self.digests.numpy()
        hashes = b"".join(hashlib.sha256(pixels.tobytes()).digest() for pixels in self.images.numpy())
        return np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 32)

    def subset(self, index: Tensor) -> LabeledImages:
        """The rows named by `index` (M,) int64, in that order."""
        digests = None if self.digests is None else self.digests[index]
        names = None if self.names is None else self.names[index.numpy()]
        return LabeledImages(self.images[index], self.labels[index], digests, names)

    def level_sums(self) -> tuple[Tensor, Tensor]:
        """Exact sums (channels,) int64 of all gray levels of a channel, and of their squares."""
        levels = torch.arange(256)
        histograms = [
            torch.bincount(self.images[:, channel].flatten(), minlength=256) for channel in range(self.image_shape[0])
        ]
        sums = torch.stack([(histogram * levels).sum() for histogram in histograms])
        return sums, torch.stack([(histogram * levels**2).sum() for histogram in histograms])


Images = LabeledImages | StreamedImages
Examples = Images | LabeledArrays | StreamedItems


LabelledImages = LabeledImages  # the name before, which an example showed


@dataclass(frozen=True)
class Groups:
    """Which examples belong together, as those of one patient or device: (N,) int64 numbers for each part."""

    train: Tensor
    test: Tensor
    validation: Tensor | None = None


@dataclass(frozen=True)
class Source:
    """A data set as found on disk: labels index `class_names`; `skipped` lists images that could not be read.

    `notes` are sentences for the user: what is odd about the data, and how it is held. `validation` is the data's own
    validation set, which stands in place of one drawn from `train`; `groups` are not to be torn apart.
    `encoding`, of a table, says in JSON how its columns became numbers (`distail.data.columns`). `file_rows`, where all
    rows are of one file, says where in it those of training stand (after them those of a validation set of its own),
    and those of the test; `ids`, where a table names each of its rows, is what it calls them in the same two parts.
    """

    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    validation: Examples | None = None
    groups: Groups | None = None
    encoding: str | None = None
    file_rows: tuple[Tensor, Tensor] | None = None
    ids: tuple[NDArray[Any], NDArray[Any]] | None = None


def image_names(images: Examples, split: str) -> list[str]:
    """What each image is called: its file, relative to the data's folder; without one, its place in the split.

    >>> image_names(LabeledImages(torch.zeros(2, 3, 4, 8, dtype=torch.uint8), torch.tensor([0, 1])), "test")
    ['test[0]', 'test[1]']
    """
    if images.names is None:
        return [f"{split}[{row}]" for row in range(len(images))]
    return [os.fsdecode(name) for name in images.names.tolist()]


def is_images(data: Examples) -> TypeGuard[Images]:
    """Whether the examples are images."""
    return isinstance(data, LabeledImages | StreamedImages)


def smallest_side(data: Examples) -> int:
    """Of an image, in pixels; 1 of what is no image."""
    return min(data.image_shape[1:]) if is_images(data) else 1


def resized(data: Images, side: int | None) -> Images:
    """The shorter side resized (bilinear, with antialiasing), the center cut to `side` x `side`; None leaves all.

    >>> resized(LabeledImages(torch.zeros(1, 3, 4, 8, dtype=torch.uint8), torch.tensor([0])), 2).images.shape
    torch.Size([1, 3, 2, 2])
    """
    _, height, width = data.image_shape
    if side is None or (height, width) == (side, side) or not len(data):
        return data
    assert isinstance(data, LabeledImages), "files are resized as they are decoded"
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    parts = [
        _interpolated(part, size)[..., top : top + side, left : left + side]
        for part in torch.split(data.images, _CHUNK)
    ]
    return LabeledImages(torch.cat(parts), data.labels)


def _interpolated(images_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    floats = F.interpolate(images_NCHW.float(), size, mode="bilinear", antialias=True, align_corners=False)
    return floats.round_().clamp_(0, 255).to(torch.uint8)
