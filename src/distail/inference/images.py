"""Images as they come to what a student takes: levels (B, channels, H, W) of 0 to 255.

Shapes: B batch, H height, W width; C channels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from distail.data.decode import EncodedImage, decode_one, read_image_file
from distail.data.image_file import Pixels, UnreadableImage, pixels_of
from distail.errors import DataError
from distail.models.description import Description

if TYPE_CHECKING:
    pass


_EXPECTED = (
    "expected a path, a PIL image, levels (H, W, channels) or (B, H, W, channels) in uint8, or floats of 0 to 1 "
    "(channels, H, W) or (B, channels, H, W)"
)


def is_one_image(images: object) -> bool:
    """Whether this is one image rather than several."""
    if isinstance(images, Tensor | np.ndarray):
        return images.ndim < 4
    return not isinstance(images, Sequence) or isinstance(images, str)


def levels_of(images: Any, description: Description) -> list[Tensor]:
    """The images as levels, each (1, channels, H, W), uint8 or float32; images of one tensor stay together.

    Raises:
        DataError: what cannot be used, and why.
    """
    if isinstance(images, Tensor | np.ndarray):
        return [_levels_of_one(images, description)]
    given = [images] if is_one_image(images) else images
    return [_levels_of_one(image, description) for image in given]


def _levels_of_one(image: Any, description: Description) -> Tensor:
    if isinstance(image, Tensor | np.ndarray):
        return levels_of_tensor(torch.as_tensor(image if isinstance(image, Tensor) else image.copy()), description)
    if isinstance(image, str | os.PathLike):
        pixels = pixels_of_file(Path(image), description)
        if isinstance(pixels, str):
            raise DataError(f"{os.fspath(image)}: {pixels}")
        return _as_batch(pixels)
    if not hasattr(image, "convert"):
        raise DataError(f"an image is {type(image).__name__}; {_EXPECTED}")
    try:
        pixels = pixels_of(image, bit_depth=description.bit_depth, in_place=False)[0]
    except UnreadableImage as reason:
        raise DataError(f"an image: {reason}") from None
    return _as_batch(in_channels_of(pixels, description.in_channels))


def pixels_of_file(path: Path, description: Description) -> Pixels | str:
    """Levels (H, W, channels) of a file, decoded as for training; or why there are none.

    A square is cut out at once where the network takes squares, so that a large JPEG need not be decoded whole.
    """
    square = description.height if description.height == description.width else None
    item = EncodedImage(str(path), partial(read_image_file, path))
    decoded = decode_one(item, square, description.bit_depth)
    return decoded if isinstance(decoded, str) else in_channels_of(decoded.pixels, description.in_channels)


def in_channels_of(pixels: Pixels, channels: int) -> Pixels:
    """Levels (H, W) or (H, W, 3) as (H, W, channels): gray three times the same, color as Pillow makes it gray.

    Raises:
        DataError: a network takes neither one nor three channels.
    """
    if channels not in (1, 3):
        raise DataError(f"the network takes {channels} channels; image files and PIL images have 1 or 3: give tensors")
    if pixels.ndim == 3 and channels == 1:
        from PIL import Image

        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    return np.repeat(pixels[..., None], channels, axis=2) if pixels.ndim == 2 else pixels


def levels_of_tensor(image: Tensor, description: Description) -> Tensor:
    """Levels (B, C, H, W) of uint8 (H, W, C) or (B, H, W, C), or of floats of 0 to 1 (C, H, W) or (B, C, H, W).

    Raises:
        DataError: another type or shape, or floats that lie outside 0 to 1.
    """
    channels = description.in_channels
    if image.dtype == torch.uint8:
        image = image[..., None] if image.ndim == 2 and channels == 1 else image
        if image.ndim in (3, 4) and image.shape[-1] == channels and image.numel():
            return image.reshape(-1, *image.shape[-3:]).permute(0, 3, 1, 2)
        raise DataError(
            f"levels are uint8 of shape {tuple(image.shape)}; expected (H, W, {channels}) or (B, H, W, {channels})"
        )
    if image.is_floating_point():
        if image.ndim not in (3, 4) or image.shape[-3] != channels or not image.numel():
            raise DataError(
                f"floats are of shape {tuple(image.shape)}; expected ({channels}, H, W) or (B, {channels}, H, W)"
            )
        least, most = (float(edge) for edge in torch.aminmax(image))
        if not (least >= -0.01 and most <= 1.01):
            raise DataError(
                f"floats reach from {least:g} to {most:g}; expected 0 to 1, not levels of 0 to 255 (which are uint8) "
                "and not normalized: the student's file knows mean and std"
            )
        return image.reshape(-1, *image.shape[-3:]).float() * 255
    raise DataError(f"an image is a tensor of {image.dtype}; {_EXPECTED}")


def _as_batch(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
