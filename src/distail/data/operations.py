"""Operations on whole batches of uint8 images, each on the images that drew it, with what Pillow's would give.

Shapes: B images, C channels, H height, W width, V the 256 levels of a channel.

Three kinds: a table of new levels for each image, looked up; an affine map, nearest pixel, black outside; and blends of
an image with another one made of it. All are integer or float32 arithmetic, the same on every device to the last bit of
a float; Pillow's functions are the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distail.data.hue import turn_hue
from distail.torch_utils import to_device

Names = NDArray[np.str_]
Magnitudes = NDArray[np.float64]

_FIXED_BITS = 16  # Pillow's fixed-point arithmetic for the nearest pixel
# Of 224 pixels a side one image at a time: places of 8 bytes each then fit a cache, and take no memory anew.
_VALUES_AT_ONCE = 2**18


def apply_operations(images_BCHW: Tensor, operation_B: Names, magnitude_B: Magnitudes) -> Tensor:
    """One operation an image, as new uint8 images in the same memory format.

    Args:
        operation_B: of `OPERATIONS`, on the host: nothing waits for a device to know which images drew which.
        magnitude_B: pixels for `translate_*`, degrees for `rotate`, shares for `shear_*`, bits for `posterize`, the
            threshold for `solarize`, turns for `hue`; `brightness`, `color`, `contrast` and `sharpness` are 1 plus it.

    >>> gray = torch.full((2, 1, 2, 2), 100, dtype=torch.uint8)
    >>> apply_operations(gray, np.array(["invert", "identity"]), np.zeros(2))[:, 0, 0, 0].tolist()
    [155, 100]
    """
    images_BCHW = images_BCHW.clone()
    pixels_BHWC = images_BCHW.permute(0, 2, 3, 1)
    for name in np.unique(operation_B):
        if name == "identity" or name in _MAPS:
            continue
        which_B = np.flatnonzero(operation_B == name)
        given_B = magnitude_B[which_B] + (name in _FACTORS)
        _apply(pixels_BHWC, which_B, given_B.astype(np.float32), _PIXELS[name])
    moved_B = np.flatnonzero(np.isin(operation_B, list(_MAPS)))
    maps_B6 = _fixed_maps(operation_B[moved_B], magnitude_B[moved_B], *images_BCHW.shape[-2:])
    _apply(pixels_BHWC, moved_B, maps_B6, _moved)
    return images_BCHW


def _apply(
    pixels_BHWC: Tensor,
    which_B: NDArray[np.int64],
    given_B: NDArray[np.generic],
    change: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Change some of the images in place, so many at once as fit a cache."""
    device = pixels_BHWC.device
    at_once = images_at_once(pixels_BHWC)
    for first in range(0, len(which_B), at_once):
        part = slice(first, first + at_once)
        rows_B = to_device(torch.from_numpy(which_B[part]), device)
        some = to_device(torch.from_numpy(given_B[part]), device)
        pixels_BHWC.index_copy_(0, rows_B, change(pixels_BHWC.index_select(0, rows_B), some))


def images_at_once(images: Tensor) -> int:
    """How many of the images (the first dimension) one pass should change: on a CPU what fits a cache, else all."""
    count = max(1, len(images))
    return count if images.device.type != "cpu" else max(1, _VALUES_AT_ONCE * count // max(1, images.numel()))


def gray_of(pixels_BHWC: Tensor) -> Tensor:
    """(B, H, W, 1) int32: Pillow's luma of three channels (ITU-R 601), the mean of any other number."""
    channels = pixels_BHWC.shape[-1]
    levels = pixels_BHWC.to(torch.int32)
    if channels != 3:
        return levels.sum(-1, keepdim=True, dtype=torch.int32) // channels
    red, green, blue = levels.unbind(-1)
    return ((red * 19595 + green * 38470 + blue * 7471 + (1 << 15)) >> 16).unsqueeze(-1)


def _blended(start: Tensor, end: Tensor, factor_B: Tensor) -> Tensor:
    """`start + factor * (end - start)`, cut off below a whole level as Pillow does."""
    factor = factor_B.view(-1, *[1] * (end.ndim - 1))
    return (start + factor * (end - start)).clamp_(0, 255).to(torch.uint8)


# Tables: (B, H, W, C) pixels and (B,) magnitudes to (B, 1 or C, V) uint8.


def _levels(pixels: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.int32, device=pixels.device)


def _brightness(pixels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    levels_BCV = _levels(pixels_BHWC).expand(len(pixels_BHWC), 1, -1)
    return _blended(torch.zeros_like(levels_BCV), levels_BCV, factor_B)


def _contrast(pixels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    gray_BP = gray_of(pixels_BHWC).flatten(1)
    count = gray_BP.shape[1]
    mean_B = (2 * gray_BP.sum(1) + count) // (2 * count)
    return _blended(mean_B.to(torch.int32)[:, None, None], _levels(pixels_BHWC).expand(1, 1, -1), factor_B)


def _posterize(pixels_BHWC: Tensor, magnitude_B: Tensor) -> Tensor:
    dropped_B11 = (8 - magnitude_B.to(torch.int32))[:, None, None]
    return ((_levels(pixels_BHWC) >> dropped_B11) << dropped_B11).to(torch.uint8)


def _solarize(pixels_BHWC: Tensor, magnitude_B: Tensor) -> Tensor:
    levels_V = _levels(pixels_BHWC)
    return torch.where(levels_V < magnitude_B[:, None, None], levels_V, 255 - levels_V).to(torch.uint8)


def _invert(pixels_BHWC: Tensor, magnitude_B: Tensor) -> Tensor:
    return (255 - _levels(pixels_BHWC)).to(torch.uint8).expand(len(pixels_BHWC), 1, -1)


def _autocontrast(pixels_BHWC: Tensor, magnitude_B: Tensor) -> Tensor:
    lines_BPC = pixels_BHWC.flatten(1, 2)
    low_BC1, high_BC1 = (limit.to(torch.int32).unsqueeze(-1) for limit in (lines_BPC.amin(1), lines_BPC.amax(1)))
    levels_V = _levels(pixels_BHWC)
    stretched_BCV = ((levels_V - low_BC1) * 255 // (high_BC1 - low_BC1).clamp(min=1)).clamp_(0, 255)
    return torch.where(high_BC1 > low_BC1, stretched_BCV, levels_V).to(torch.uint8)


def _equalize(pixels_BHWC: Tensor, magnitude_B: Tensor) -> Tensor:
    batch, _, _, channels = pixels_BHWC.shape
    places = (pixels_BHWC.to(torch.int64) + torch.arange(channels, device=pixels_BHWC.device) * 256).flatten(1)
    counts_BCV = torch.zeros(batch, channels * 256, dtype=torch.int32, device=pixels_BHWC.device)
    counts_BCV = counts_BCV.scatter_add_(1, places, torch.ones_like(places, dtype=torch.int32)).view(
        batch, channels, 256
    )
    levels_V = _levels(pixels_BHWC)
    last_BC1 = torch.where(counts_BCV > 0, levels_V, 0).amax(-1, keepdim=True).to(torch.int64)
    below_BCV = counts_BCV.cumsum(-1, dtype=torch.int32) - counts_BCV
    step_BC1 = below_BCV.gather(-1, last_BC1) // 255  # all but the brightest level that there is
    even_BCV = ((step_BC1 // 2 + below_BCV) // step_BC1.clamp(min=1)).clamp_(0, 255)
    return torch.where(step_BC1 > 0, even_BCV, levels_V).to(torch.uint8)


def _by_table(make: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def change(pixels_BHWC: Tensor, magnitude_B: Tensor) -> Tensor:
        batch, _, _, channels = pixels_BHWC.shape
        table_BCV = make(pixels_BHWC, magnitude_B).expand(batch, channels, 256)
        # One flat look-up of int32 places: five times as fast as advanced indexing.
        first_BC = torch.arange(batch * channels, dtype=torch.int32, device=pixels_BHWC.device) * 256
        places = pixels_BHWC.to(torch.int32) + first_BC.view(batch, 1, 1, channels)
        return table_BCV.reshape(-1).index_select(0, places.flatten()).view(pixels_BHWC.shape)

    return change


# Blends: (B, H, W, C) pixels and (B,) magnitudes to pixels.


def _color(pixels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    return _blended(gray_of(pixels_BHWC), pixels_BHWC.to(torch.int32), factor_B)


def _sharpness(pixels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    """Away from the image under Pillow's SMOOTH: 3 x 3 pixels, the middle one five times, the outermost as they are."""
    levels = pixels_BHWC.to(torch.int32)
    smooth = levels.clone()
    if min(levels.shape[1:3]) > 2:
        rows = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
        middle = levels[:, 1:-1, 1:-1]
        weighted = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * middle
        smooth[:, 1:-1, 1:-1] = (2 * weighted + 13) // 26
    return _blended(smooth, levels, factor_B)


_PIXELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": _by_table(_autocontrast),
    "brightness": _by_table(_brightness),
    "contrast": _by_table(_contrast),
    "equalize": _by_table(_equalize),
    "invert": _by_table(_invert),
    "posterize": _by_table(_posterize),
    "solarize": _by_table(_solarize),
    "color": _color,
    "hue": turn_hue,
    "sharpness": _sharpness,
}

_FACTORS = ("brightness", "color", "contrast", "sharpness")
_MAPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
OPERATIONS = ("identity", *_PIXELS, *_MAPS)


def _fixed_maps(operation_B: Names, magnitude_B: Magnitudes, height: int, width: int) -> NDArray[np.int64]:
    """The maps (B, 6) from a result's pixel to the one that it shows, in 16.16 fixed point, from pixel centers."""
    maps_B6 = np.tile(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]), (len(operation_B), 1))
    for name, column in (("shear_x", 1), ("shear_y", 3)):
        of_name = operation_B == name
        maps_B6[of_name, column] = magnitude_B[of_name]
    for name, column in (("translate_x", 2), ("translate_y", 5)):
        of_name = operation_B == name
        maps_B6[of_name, column] = -np.trunc(magnitude_B[of_name])
    turned = operation_B == "rotate"
    angle = -np.deg2rad(magnitude_B[turned])
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = width / 2, height / 2
    maps_B6[turned] = np.stack(
        [cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y], axis=1
    )
    maps_B6[:, [2, 5]] += (maps_B6[:, [0, 3]] + maps_B6[:, [1, 4]]) / 2
    fixed: NDArray[np.int64] = np.floor(maps_B6 * 2**_FIXED_BITS + 0.5).astype(np.int64)
    return fixed


def _moved(pixels_BHWC: Tensor, maps_B6: Tensor) -> Tensor:
    batch, height, width, channels = pixels_BHWC.shape
    device = pixels_BHWC.device
    a, b, c, d, e, f = maps_B6[:, :, None, None].unbind(1)
    x_W, y_H1 = torch.arange(width, device=device), torch.arange(height, device=device)[:, None]
    x_BHW, y_BHW = ((a * x_W + (b * y_H1 + c)) >> _FIXED_BITS, (d * x_W + (e * y_H1 + f)) >> _FIXED_BITS)
    outside_BHW = (x_BHW < 0) | (x_BHW >= width) | (y_BHW < 0) | (y_BHW >= height)
    first_B = torch.arange(batch, device=device)[:, None, None] * (height * width)
    source = (y_BHW * width + x_BHW).masked_fill_(outside_BHW, 0) + first_B
    seen = pixels_BHWC.reshape(-1, channels).index_select(0, source.flatten()).view(pixels_BHWC.shape)
    return seen.masked_fill_(outside_BHW.unsqueeze(-1), 0)
