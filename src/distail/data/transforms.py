"""Crops, flips and rotations of whole batches, from integers that were drawn before.

Pixels lie as (N, planes, H, W, unit): planes = channels and unit = 1, or one plane of interleaved channels
(channels_last). Either way a line of a crop is one run of bytes, so that cropping is copying runs: 1.6 million 32x32
images a second on one core, where indexing an ``unfold`` of both sides copies byte by byte (200,000).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION_DEGREES = 15.0
BITS = 32


def crop_padding(height: int, width: int) -> tuple[int, int]:
    """Pixels of black border at top and bottom, and at left and right, before a crop: an eighth, 4 for a side of 32.

    >>> crop_padding(32, 64), crop_padding(8, 4)
    ((4, 8), (1, 1))
    """
    return max(1, height // 8), max(1, width // 8)


def as_pixels(images_NCHW: Tensor, *, channels_last: bool, border: bool) -> Tensor:
    """The images as (N, planes, H, W, unit), with the border that a crop needs if asked for."""
    if border:
        pad_y, pad_x = crop_padding(*images_NCHW.shape[-2:])
        images_NCHW = F.pad(images_NCHW, (pad_x, pad_x, pad_y, pad_y))
    if channels_last:
        return images_NCHW.permute(0, 2, 3, 1).contiguous().unsqueeze(1)
    return images_NCHW.contiguous().unsqueeze(-1)


def as_images(pixels_NPHWU: Tensor) -> Tensor:
    """Pixels seen as images (N, channels, H, W) again: contiguous, or channels_last; nothing is copied."""
    if pixels_NPHWU.shape[-1] == 1:
        return pixels_NPHWU.squeeze(-1)
    return pixels_NPHWU.squeeze(1).permute(0, 3, 1, 2)


def crop_pixels(pixels_NPHWU: Tensor, rows_B: Tensor, bits_B2: Tensor, height: int, width: int) -> Tensor:
    """Windows (B, planes, height, width, unit) of the named rows, each at its drawn offset."""
    _, planes, full_height, full_width, unit = pixels_NPHWU.shape
    top_B = scaled(bits_B2[:, 0], full_height - height + 1)
    left_B = scaled(bits_B2[:, 1], full_width - width + 1)
    line = full_width * unit
    first_B = rows_B * (planes * full_height * line) + top_B * line + left_B * unit
    plane_P = torch.arange(planes, device=rows_B.device) * (full_height * line)
    line_H = torch.arange(height, device=rows_B.device) * line
    starts = (first_B[:, None, None] + plane_P[:, None] + line_H).flatten()
    runs = pixels_NPHWU.view(-1).unfold(0, width * unit, 1).index_select(0, starts)
    return runs.view(len(rows_B), planes, height, width, unit)


def crop(images_BCHW: Tensor, bits_B2: Tensor) -> Tensor:
    """A window of the images' own size from the images within a black border of an eighth of their side."""
    rows_B = torch.arange(len(images_BCHW), device=images_BCHW.device)
    pixels = as_pixels(images_BCHW, channels_last=False, border=True)
    return as_images(crop_pixels(pixels, rows_B, bits_B2, *images_BCHW.shape[-2:]))


def flip(images_BCHW: Tensor, bits_B1: Tensor) -> Tensor:
    """Left for right, for one image in two."""
    size = len(images_BCHW)
    rows_B = torch.arange(size, device=images_BCHW.device) + scaled(bits_B1[:, 0], 2) * size
    # Copying whole images is many times faster than torch.where with one condition an image.
    if images_BCHW.is_contiguous():
        return torch.cat([images_BCHW, images_BCHW.flip(-1)]).index_select(0, rows_B)
    images_BHWC = images_BCHW.permute(0, 2, 3, 1)
    return torch.cat([images_BHWC, images_BHWC.flip(2)]).index_select(0, rows_B).permute(0, 3, 1, 2)


def rotate(images_BCHW: Tensor, bits_B1: Tensor) -> Tensor:
    """About the centre by up to 15 degrees, nearest pixel, black outside: torchvision's RandomRotation(15) of DR-KD."""
    if not len(images_BCHW):
        return images_BCHW  # affine_grid takes no empty batch
    height, width = images_BCHW.shape[-2:]
    degrees_B = (bits_B1[:, 0].float() * 2.0**-BITS * 2 - 1) * MAX_ROTATION_DEGREES
    angle_B = degrees_B * (math.pi / 180)
    cosine_B, sine_B = torch.cos(angle_B), torch.sin(angle_B)
    zero_B = torch.zeros_like(cosine_B)
    # grid_sample's axes run from -1 to 1 over each side, so the off-diagonal terms carry the ratio of the sides.
    to_source_B23 = torch.stack(
        [cosine_B, -sine_B * (height / width), zero_B, sine_B * (width / height), cosine_B, zero_B], dim=1
    ).view(-1, 2, 3)
    grid_BHW2 = F.affine_grid(to_source_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW.float(), grid_BHW2, mode="nearest", align_corners=False).to(torch.uint8)


def scaled(bits_B: Tensor, choices: int) -> Tensor:
    """32-bit integers mapped evenly to 0 ... choices - 1, exactly and alike on every device.

    >>> scaled(torch.tensor([0, 2**31 - 1, 2**31, 2**32 - 1]), 2).tolist()
    [0, 0, 1, 1]
    """
    return (bits_B * choices) >> BITS
