"""Boxes of an image: resized to the whole, or erased.

Shapes: B images, C channels, H height, W width, k columns of random 32-bit integers, T tries.

Boxes are drawn on the host; nothing waits for a device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distail.config.augment import Cutout, RandomErasing, RandomResizedCrop
from distail.data.operations import images_at_once
from distail.data.policies import Bits, chosen, units
from distail.torch_utils import to_device

# So often torchvision draws a box anew that does not fit; each try takes an area and a ratio.
TRIES = 10
CROP_COLUMNS, ERASING_COLUMNS, CUTOUT_COLUMNS = 2 * TRIES + 2, 2 * TRIES + 3, 2


class Boxes(NamedTuple):
    """Of each image (B,) the first row and column and those after the last, in pixels."""

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    bottom: NDArray[np.int64]
    right: NDArray[np.int64]


def random_resized_crop(images_BCHW: Tensor, bits_Bk: Bits, options: RandomResizedCrop) -> Tensor:
    """A box, cut out and resized to the images' own size, bilinear; where none fits, as much of the middle as does."""
    height, width = images_BCHW.shape[-2:]
    box = _drawn_boxes(bits_Bk, options.scale, options.ratio, height, width, fallback=True)
    x_BW, y_BH = _points(box.left, box.right, width), _points(box.top, box.bottom, height)
    device, result = images_BCHW.device, torch.empty_like(images_BCHW)
    at_once = images_at_once(images_BCHW)
    for first in range(0, len(images_BCHW), at_once):
        part = slice(first, first + at_once)
        x, y = (to_device(torch.from_numpy(points[part]), device) for points in (x_BW, y_BH))
        grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
        some = images_BCHW[part].float()
        seen = F.grid_sample(some, grid, mode="bilinear", padding_mode="border", align_corners=False)
        result[part] = seen.add_(0.5)
    return result


def random_erasing(images_BCHW: Tensor, bits_Bk: Bits, options: RandomErasing) -> Tensor:
    """A box of some normalized images set to 0, the mean color, in place; where no try fits an image stays as it is."""
    height, width = images_BCHW.shape[-2:]
    low, high = options.ratio
    box = _drawn_boxes(bits_Bk[:, 1:], options.scale, (1 / high, 1 / low), height, width, fallback=False)
    erased_B = units(bits_Bk[:, 0]) < options.probability
    return _erased(images_BCHW, box._replace(bottom=np.where(erased_B, box.bottom, box.top)))


def cutout(images_BCHW: Tensor, bits_B2: Bits, options: Cutout) -> Tensor:
    """A square about a random pixel of every normalized image set to 0, the mean color, in place."""
    height, width = images_BCHW.shape[-2:]
    length = cutout_length(options, height, width)
    top, left = (chosen(bits_B2[:, at], side) - length // 2 for at, side in enumerate((height, width)))
    return _erased(images_BCHW, Boxes(top, left, top + length, left + length))


def cutout_length(options: Cutout, height: int, width: int) -> int:
    """The side of the square in pixels: half of the shorter side, where none is given.

    >>> cutout_length(Cutout(), 32, 48), cutout_length(Cutout(length=8), 32, 48)
    (16, 8)
    """
    return options.length or max(1, min(height, width) // 2)


def _erased(images_BCHW: Tensor, box: Boxes) -> Tensor:
    height, width = images_BCHW.shape[-2:]
    sides = []
    for first, end, size in ((box.top, box.bottom, height), (box.left, box.right, width)):
        place = np.arange(size)
        inside = (place >= first[:, None]) & (place < end[:, None])
        sides.append(to_device(torch.from_numpy(inside), images_BCHW.device))
    inside_BHW = sides[0][:, :, None] & sides[1][:, None, :]
    return images_BCHW.masked_fill_(inside_BHW[:, None], 0)


def _drawn_boxes(
    bits_Bk: Bits,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    height: int,
    width: int,
    *,
    fallback: bool,
) -> Boxes:
    """The first of the tries that fits; else the middle (`fallback`), or an empty box.

    As torchvision draws: an even share of the area, an even logarithm of the ratio (width to height), then an even
    place.
    """
    area_BT = height * width * (scale[0] + units(bits_Bk[:, 0 : 2 * TRIES : 2]) * (scale[1] - scale[0]))
    low, high = np.log(ratio)
    ratio_BT = np.exp(low + units(bits_Bk[:, 1 : 2 * TRIES : 2]) * (high - low))
    wide_BT, high_BT = (np.round(np.sqrt(area_BT * by)).astype(np.int64) for by in (ratio_BT, 1 / ratio_BT))
    spare = 0 if fallback else 1  # what is erased is never a whole side
    fits_BT = (wide_BT > 0) & (high_BT > 0) & (wide_BT <= width - spare) & (high_BT <= height - spare)
    first_B1 = fits_BT.argmax(1)[:, None]
    wide_B, high_B = (np.take_along_axis(one, first_B1, 1)[:, 0] for one in (wide_BT, high_BT))
    none_B = ~fits_BT.any(1)
    widest = min(width, round(height * ratio[1])) if width / height > ratio[1] else width
    highest = min(height, round(width / ratio[0])) if width / height < ratio[0] else height
    wide_B[none_B], high_B[none_B] = (max(1, widest), max(1, highest)) if fallback else (0, 0)
    top_B, left_B = (
        chosen(bits_Bk[:, -2 + at], size) for at, size in enumerate((height - high_B + 1, width - wide_B + 1))
    )
    top_B[none_B], left_B[none_B] = ((height - high_B) // 2)[none_B], ((width - wide_B) // 2)[none_B]
    return Boxes(top_B, left_B, top_B + high_B, left_B + wide_B)


def _points(first_B: NDArray[np.int64], end_B: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """Where in the image (-1 to 1, as grid_sample counts) each of `size` pixels of the resized box looks.

    Never beyond the centers of the box's outermost pixels, as if it had been cut out first.
    """
    span_B1 = (end_B - first_B)[:, None]
    inside = np.clip((np.arange(size) + 0.5) * span_B1 / size, 0.5, span_B1 - 0.5)
    result: NDArray[np.float32] = (2 * (first_B[:, None] + inside) / size - 1).astype(np.float32)
    return result
