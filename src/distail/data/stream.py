"""Batches of images that stay on disk, decoded by worker processes ahead of who trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee

import numpy as np
import torch
from torch import Tensor

from distail.data.file_work import Names
from distail.data.image_file import load_decoders
from distail.data.streamed import StreamedImages
from distail.data.workers import Workers
from distail.errors import DataError, first_of, listed

# Small against a batch of large images, so that all processes work on the batch that is wanted next; large against what
# handing over a piece costs.
_PIECE_BYTES = 2**22
_MOST_IMAGES_A_PIECE = 256


class ImageStream:
    """Batches of a streamed data set on a device, as uint8 (B, H, W, channels).

    No more than two batches of ``batch_size`` are decoded before they are asked for, at least two pieces by each
    process; the processes stay from one pass to the next, until ``close``. Passes follow one another: a new one ends
    the one before.
    """

    def __init__(self, data: StreamedImages, batch_size: int, device: torch.device | str = "cpu") -> None:
        load_decoders()
        self._data, self._device = data, torch.device(device)
        self._shape = (data.image_shape[1], data.image_shape[2], data.image_shape[0])
        self._piece = max(1, min(_MOST_IMAGES_A_PIECE, _PIECE_BYTES // int(np.prod(self._shape))))
        workers = min(data.workers, self._pieces_of(len(data)))
        ahead = -(-2 * self._pieces_of(batch_size) // max(1, workers))
        self._workers: Workers[Names, Tensor | list[str]] = Workers(
            data.decode, workers, ahead=max(2, ahead), pinned=self._device.type == "cuda"
        )

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images of each ``index_B`` (B,) int64 on the CPU, whose rows may be none.

        Raises ``DataError`` for files that have changed since they were looked at, ``TrainingError`` where a process
        was ended from outside.
        """
        ahead, here = tee(indices)
        pieces = self._workers.results(piece for index_B in ahead for piece in self._pieces(index_B))
        for index_B in here:
            images_BHWC = torch.empty((len(index_B), *self._shape), dtype=torch.uint8, device=self._device)
            filled = 0
            for _ in range(self._pieces_of(len(index_B))):
                piece = next(pieces)
                if isinstance(piece, list):
                    raise DataError(
                        listed(first_of(piece), "images could be read when they were checked, but not any more:")
                    )
                images_BHWC[filled : filled + len(piece)].copy_(piece, non_blocking=True)
                filled += len(piece)
            yield images_BHWC

    def close(self) -> None:
        """End the processes."""
        self._workers.close()

    def _pieces(self, index_B: Tensor) -> list[Names]:
        count = self._pieces_of(len(index_B))
        return np.array_split(self._data.names[index_B.numpy()], count) if count else []

    def _pieces_of(self, batch_size: int) -> int:
        return -(-batch_size // self._piece)
