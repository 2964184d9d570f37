"""What worker processes do with image files: decode them into one tensor, or look at each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from distail.data.decode import DecodedImage, EncodedImage, decode_one
from distail.data.image_file import Pixels, read_image_file

Names = NDArray[np.bytes_]


class Facts(NamedTuple):
    """What is known of n images once they have been decoded; what is said of an unreadable one means nothing.

    ``problems``: why each cannot be read, or None; ``digests`` (n, 32) uint8: the SHA-256 of each file; ``shapes``
    (n, 3) int64: height, width, channels; ``sums`` and ``squares`` (n, 3) int64: of the grey levels, and of their
    squares, by channel, of a grey image three times the same.
    """

    problems: list[str | None]
    digests: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]


@dataclass(frozen=True)
class LookAtFiles:
    """Facts of the files named."""

    folder: str
    image_size: int | None

    def __call__(self, names: Names) -> Facts:
        count = len(names)
        digests = np.zeros((count, 32), dtype=np.uint8)
        shapes, sums, squares = (np.zeros((count, 3), dtype=np.int64) for _ in range(3))
        problems: list[str | None] = []
        for row, (_, decoded) in enumerate(_decoded(self.folder, names, self.image_size)):
            if isinstance(decoded, str):
                problems.append(decoded)
                continue
            problems.append(None)
            digests[row] = np.frombuffer(decoded.digest, dtype=np.uint8)
            shapes[row] = _shape(decoded.pixels)
            sums[row], squares[row] = _level_sums(decoded.pixels)
        return Facts(problems, digests, shapes, sums, squares)


@dataclass(frozen=True)
class DecodeFiles:
    """The files named as one uint8 tensor (B, H, W, channels), or the problems of those that fail.

    ``image_shape`` (channels, H, W) is what every file was found to be when it was looked at.
    """

    folder: str
    image_size: int | None
    image_shape: tuple[int, int, int]

    def __call__(self, names: Names) -> Tensor | list[str]:
        channels, height, width = self.image_shape
        images = np.empty((len(names), height, width, channels), dtype=np.uint8)
        problems = []
        for row, (name, decoded) in enumerate(_decoded(self.folder, names, self.image_size)):
            problem = decoded if isinstance(decoded, str) else self._placed(decoded.pixels, images[row])
            if problem is not None:
                problems.append(f"{name}: {problem}")
        if problems:
            return problems
        # A worker shares it here, where too little shared memory can be told of: it would be silent while it sends.
        images_BHWC = torch.from_numpy(images)
        if get_worker_info() is not None:
            images_BHWC.share_memory_()  # type: ignore[no-untyped-call]
        return images_BHWC

    def _placed(self, pixels: Pixels, image_HWC: Pixels) -> str | None:
        """Write the pixels in their place; or say why they do not fit."""
        height, width, channels = _shape(pixels)
        if (height, width) != image_HWC.shape[:2] or channels > image_HWC.shape[2]:
            return f"now {_described(_shape(pixels))}, where all are {_described(image_HWC.shape)}"
        image_HWC[...] = pixels if pixels.ndim == 3 else pixels[..., None]
        return None


def _decoded(folder: str, names: Names, image_size: int | None) -> Iterator[tuple[str, DecodedImage | str]]:
    for encoded_name in names.tolist():
        name = os.fsdecode(encoded_name)
        yield name, decode_one(EncodedImage(name, partial(read_image_file, Path(folder, name))), image_size)


def _shape(pixels: Pixels) -> tuple[int, int, int]:
    return pixels.shape[0], pixels.shape[1], pixels.shape[2] if pixels.ndim == 3 else 1


def _level_sums(pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    channels = _shape(pixels)[2]
    lines = pixels.reshape(len(pixels), -1)
    # Squares of bytes fit 16 bits; adding whole lines first is many times faster than adding up single channels.
    sums = lines.sum(axis=0, dtype=np.int64).reshape(-1, channels).sum(axis=0)
    squares = np.square(lines, dtype=np.uint16).sum(axis=0, dtype=np.int64).reshape(-1, channels).sum(axis=0)
    return sums, squares


def _described(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'in colour'}"
