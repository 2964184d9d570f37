"""Encoded images to one uint8 tensor: in parallel, every bad image reported at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.progress import progress_bar
from distail.errors import DataError, listed

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
_CHUNK = 256
_SHOWN = 10


@dataclass(frozen=True)
class EncodedImage:
    """An image file: ``name`` as users know it, ``read`` gives its bytes."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Decoded:
    """``images`` (M, channels, H, W) uint8; ``rows`` (M,) int64: which of the encoded ones; ``skipped``: the others."""

    images: Tensor
    rows: Tensor
    skipped: tuple[str, ...]


class _Unreadable(Exception):
    """Why one image cannot be used."""


def decode_all(
    encoded: Sequence[EncodedImage], *, image_size: int | None, skip_unreadable: bool, progress: bool
) -> Decoded:
    """Decode every image; grey if all are single-channel grey, else RGB.

    Raises ``DataError`` listing the images that cannot be read (unless ``skip_unreadable``), and where sizes differ
    without an ``image_size``.
    """
    outcomes = _outcomes(encoded, image_size, progress)
    problems = [
        f"{item.name}: {outcome}" for item, outcome in zip(encoded, outcomes, strict=True) if isinstance(outcome, str)
    ]
    if problems and not skip_unreadable:
        shown = problems[:_SHOWN] + ([f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
        raise DataError(
            f"{listed(shown, f'{len(problems)} of {len(encoded)} images cannot be read:')}\n"
            "Repair or remove them, or leave them out with data.skip_unreadable: true."
        )
    rows = [row for row, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
    pixels = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    if not pixels:
        raise DataError(listed(problems[:_SHOWN], "no image can be read:") if problems else "there are no images")
    sizes = Counter(image.shape[:2] for image in pixels)
    if len(sizes) > 1:
        found = [f"{width}x{height}: {count} images" for (height, width), count in sizes.most_common(_SHOWN)]
        raise DataError(
            f"{listed(found, f'images have {len(sizes)} different sizes (width x height):')}\n"
            "Set data.image_size to the side to which all are resized and centre-cropped, such as 32."
        )
    return Decoded(_stacked(pixels), torch.tensor(rows, dtype=torch.int64), tuple(problems))


def decode_image(data: bytes, image_size: int | None) -> Pixels:
    """One image as (H, W) grey or (H, W, 3) RGB uint8: upright by EXIF, transparency over white, 16 bits cut to 8."""
    from PIL import Image, ImageOps

    if not data:
        raise _Unreadable("the file is empty")
    try:
        with Image.open(BytesIO(data)) as image:
            width, height = image.size
            if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
                raise _Unreadable(f"{width}x{height} pixels are more than Pillow's limit against decompression bombs")
            image.load()
            upright = _grey_or_rgb(ImageOps.exif_transpose(image))
            return np.array(upright if image_size is None else _centre_square(upright, image_size), dtype=np.uint8)
    except _Unreadable:
        raise
    # Pillow's decoders raise more kinds of exception on damaged bytes than can be named.
    except Exception as error:
        raise _Unreadable(
            " ".join(str(error).split()).replace(" <_io.BytesIO object at", " <") or repr(error)
        ) from error


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise _Unreadable(f"32-bit grey levels ({levels.min()} to {levels.max()}); expected 8 or 16 bits")
        return Image.fromarray((levels // 257).astype(np.uint8))
    if image.mode == "F":
        raise _Unreadable("floating-point grey levels; expected 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat.convert("L") if image.mode in ("LA", "La") else flat
    return image.convert("RGB")


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    width, height = image.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    resized = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return resized.crop((left, top, left + side, top + side))


def _stacked(pixels: list[Pixels]) -> Tensor:
    height, width = pixels[0].shape[:2]
    channels = 3 if any(image.ndim == 3 for image in pixels) else 1
    images = np.empty((len(pixels), channels, height, width), dtype=np.uint8)
    for row, image in enumerate(pixels):
        images[row] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(images)


def _outcomes(encoded: Sequence[EncodedImage], image_size: int | None, progress: bool) -> list[Pixels | str]:
    """For each image its pixels, or why there are none."""

    def decoded(first: int) -> list[Pixels | str]:
        return [_outcome(item, image_size) for item in encoded[first : first + _CHUNK]]

    outcomes: list[Pixels | str] = []
    with (
        ThreadPoolExecutor(_usable_cores()) as workers,
        progress_bar("Decoding images", len(encoded), show=progress) as advance,
    ):
        for part in workers.map(decoded, range(0, len(encoded), _CHUNK)):
            outcomes += part
            advance(len(part))
    return outcomes


def _outcome(item: EncodedImage, image_size: int | None) -> Pixels | str:
    try:
        return decode_image(item.read(), image_size)
    except _Unreadable as reason:
        return str(reason)
    except OSError as error:
        return error.strerror or str(error)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
