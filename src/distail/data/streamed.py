"""A data set that stays encoded on disk: what is known of its images without holding one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distail.data.file_work import DecodeFiles


@dataclass(frozen=True)
class StreamedImages:
    """N image files that have all been decoded once and are decoded again, batch by batch, by worker processes.

    ``names`` (N,) bytes, relative to the folder of ``decode``; ``labels`` (N,) int64; ``digests`` (N, 32) uint8, the
    SHA-256 of each file; ``sums`` and ``squares`` (N, channels) int64, of each image's grey levels and of their
    squares. About 200 bytes an image, whatever its size. ``workers`` processes decode; 0: none but this one.
    """

    names: NDArray[np.bytes_]
    labels: Tensor
    digests: Tensor
    sums: Tensor
    squares: Tensor
    decode: DecodeFiles
    workers: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every decoded image."""
        return self.decode.image_shape

    def subset(self, index: Tensor) -> StreamedImages:
        """The rows named by ``index`` (M,) int64, in that order."""
        return replace(
            self,
            names=self.names[index.numpy()],
            labels=self.labels[index],
            digests=self.digests[index],
            sums=self.sums[index],
            squares=self.squares[index],
        )

    def level_sums(self) -> tuple[Tensor, Tensor]:
        """Exact sums (channels,) int64 of all grey levels of a channel, and of their squares."""
        return self.sums.sum(0), self.squares.sum(0)
