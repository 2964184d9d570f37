"""Encoded images to one uint8 tensor: every bad image reported at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from distail.data.image_file import Pixels, UnreadableImage, decode_image
from distail.data.options import SourceOptions
from distail.data.problems import first_of
from distail.data.progress import progress_bar
from distail.errors import DataError, listed

_CHUNK = 64
# Below about this many encoded bytes an image, threads only wait for each other (Pillow's own Python code).
_BYTES_WORTH_THREADS = 8192


@dataclass(frozen=True)
class EncodedImage:
    """An image file: ``name`` as users know it; ``read`` gives its bytes."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Decoded:
    """``images`` (M, channels, H, W) uint8; ``rows`` (M,) int64: which of the encoded ones; ``skipped``: the others."""

    images: Tensor
    rows: Tensor
    skipped: tuple[str, ...]


def decode_all(encoded: Sequence[EncodedImage], options: SourceOptions) -> Decoded:
    """Decode every image; grey if all are single-channel grey, else RGB.

    Raises ``DataError`` listing the images that cannot be read (unless ``skip_unreadable``), and where sizes differ
    without an ``image_size``.
    """
    outcomes: list[Pixels | str] = []
    with progress_bar("Decoding images", len(encoded), show=options.progress) as advance:
        for part in _decoded_parts(encoded, options.image_size):
            outcomes += part
            advance(len(part))
    problems = [f"{item.name}: {why}" for item, why in zip(encoded, outcomes, strict=True) if isinstance(why, str)]
    if problems and (not options.skip_unreadable or len(problems) == len(encoded)):
        raise DataError(
            f"{listed(first_of(problems), f'{len(problems)} of {len(encoded)} images cannot be read:')}\n"
            "Repair or remove them, or leave them out with data.skip_unreadable: true."
        )
    rows = [row for row, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
    pixels = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    _check_one_size(pixels)
    return Decoded(_stacked(pixels), torch.tensor(rows, dtype=torch.int64), tuple(problems))


def _decoded_parts(encoded: Sequence[EncodedImage], image_size: int | None) -> Iterator[list[Pixels | str]]:
    def decoded(first: int) -> list[Pixels | str]:
        return [_outcome(item, image_size) for item in encoded[first : first + _CHUNK]]

    firsts = range(0, len(encoded), _CHUNK)
    if _typical_size(encoded) < _BYTES_WORTH_THREADS:
        yield from map(decoded, firsts)
        return
    with ThreadPoolExecutor(_usable_cores()) as workers:
        yield from workers.map(decoded, firsts)


def _outcome(item: EncodedImage, image_size: int | None) -> Pixels | str:
    """The pixels, or why there are none."""
    try:
        return decode_image(item.read(), image_size)
    except UnreadableImage as reason:
        return str(reason)
    except OSError as error:
        return error.strerror or str(error)


def _typical_size(encoded: Sequence[EncodedImage]) -> float:
    sizes = []
    for item in islice(encoded, 0, None, max(1, len(encoded) // 16)):
        try:
            sizes.append(len(item.read()))
        except OSError:
            continue
    return sum(sizes) / max(1, len(sizes))


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_one_size(pixels: list[Pixels]) -> None:
    sizes = Counter(image.shape[:2] for image in pixels)
    if len(sizes) > 1:
        found = [f"{width}x{height}: {count} images" for (height, width), count in sizes.most_common()]
        raise DataError(
            f"{listed(first_of(found), f'images have {len(sizes)} different sizes (width x height):')}\n"
            "Set data.image_size to the side to which all are resized and centre-cropped, such as 32."
        )


def _stacked(pixels: list[Pixels]) -> Tensor:
    height, width = pixels[0].shape[:2]
    channels = 3 if any(image.ndim == 3 for image in pixels) else 1
    images = np.empty((len(pixels), channels, height, width), dtype=np.uint8)
    for row, image in enumerate(pixels):
        images[row] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(images)
