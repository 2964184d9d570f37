"""Encoded images to one uint8 tensor: every bad image reported at once."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distail.data.image_file import Pixels, UnreadableImage, decode_image
from distail.data.options import SourceOptions
from distail.data.progress import progress_bar
from distail.errors import DataError, first_of, listed

_CHUNK = 64
# Below about this many encoded bytes an image, threads only wait for each other (Pillow's own Python code).
_BYTES_WORTH_THREADS = 8192


@dataclass(frozen=True)
class EncodedImage:
    """An image file: ``name`` as users know it; ``read`` gives its bytes."""

    name: str
    read: Callable[[], bytes]


class DecodedImage(NamedTuple):
    """Pixels (H, W) or (H, W, 3) uint8, and the SHA-256 of the bytes they were decoded from."""

    pixels: Pixels
    digest: bytes


@dataclass(frozen=True)
class Decoded:
    """``images`` (M, channels, H, W) uint8; ``rows`` (M,) int64: which of the encoded ones; ``skipped``: the others.

    ``digests`` (M, 32) uint8: the SHA-256 of each encoded image.
    """

    images: Tensor
    rows: Tensor
    digests: Tensor
    skipped: tuple[str, ...]


def decode_all(encoded: Sequence[EncodedImage], options: SourceOptions) -> Decoded:
    """Decode every image; grey if all are single-channel grey, else RGB.

    Raises ``DataError`` listing the images that cannot be read (unless ``skip_unreadable``), and where sizes differ
    without an ``image_size``.
    """
    outcomes: list[DecodedImage | str] = []
    with progress_bar("Decoding images", len(encoded), show=options.progress) as advance:
        for part in _decoded_parts(encoded, options.image_size):
            outcomes += part
            advance(len(part))
    problems = [f"{item.name}: {why}" for item, why in zip(encoded, outcomes, strict=True) if isinstance(why, str)]
    check_unreadable(problems, len(encoded), options)
    rows = [row for row, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
    images = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    check_one_size(Counter(image.pixels.shape[:2] for image in images))
    return Decoded(
        _stacked([image.pixels for image in images]),
        torch.tensor(rows, dtype=torch.int64),
        torch.frombuffer(bytearray(b"".join(image.digest for image in images)), dtype=torch.uint8).view(-1, 32),
        tuple(problems),
    )


def decode_one(item: EncodedImage, image_size: int | None) -> DecodedImage | str:
    """The image, or why there is none."""
    try:
        data = item.read()
        return DecodedImage(decode_image(data, image_size), hashlib.sha256(data).digest())
    except UnreadableImage as reason:
        return str(reason)
    except OSError as error:
        return error.strerror or str(error)


def check_unreadable(problems: Sequence[str], total: int, options: SourceOptions) -> None:
    """``DataError`` that lists the images that cannot be read, unless they may be skipped and others are left."""
    if problems and (not options.skip_unreadable or len(problems) == total):
        raise DataError(
            f"{listed(first_of(problems), f'{len(problems)} of {total} images cannot be read:')}\n"
            "Repair or remove them, or leave them out with data.skip_unreadable: true."
        )


def check_one_size(sizes: Counter[tuple[int, ...]]) -> None:
    """``DataError`` where images have several sizes (height, width)."""
    if len(sizes) > 1:
        found = [f"{width}x{height}: {count} images" for (height, width), count in sizes.most_common()]
        raise DataError(
            f"{listed(first_of(found), f'images have {len(sizes)} different sizes (width x height):')}\n"
            "Set data.image_size to the side to which all are resized and centre-cropped, such as 32."
        )


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decoded_parts(encoded: Sequence[EncodedImage], image_size: int | None) -> Iterator[list[DecodedImage | str]]:
    def decoded(first: int) -> list[DecodedImage | str]:
        return [decode_one(item, image_size) for item in encoded[first : first + _CHUNK]]

    firsts = range(0, len(encoded), _CHUNK)
    if _typical_size(encoded) < _BYTES_WORTH_THREADS:
        yield from map(decoded, firsts)
        return
    with ThreadPoolExecutor(usable_cores()) as workers:
        yield from workers.map(decoded, firsts)


def _typical_size(encoded: Sequence[EncodedImage]) -> float:
    sizes = []
    for item in islice(encoded, 0, None, max(1, len(encoded) // 16)):
        try:
            sizes.append(len(item.read()))
        except (OSError, UnreadableImage):
            continue
    return sum(sizes) / max(1, len(sizes))


def _stacked(pixels: list[Pixels]) -> Tensor:
    height, width = pixels[0].shape[:2]
    channels = 3 if any(image.ndim == 3 for image in pixels) else 1
    images = np.empty((len(pixels), channels, height, width), dtype=np.uint8)
    for row, image in enumerate(pixels):
        images[row] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(images)
