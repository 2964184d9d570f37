"""The hue of uint8 images turned, by way of Pillow's HSV of 8 bits a channel.

Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distail.torch_utils import to_device

# Which of value, falling, low and rising each of red, green and blue is, in each sixth of the circle.
_PLACES = torch.tensor([[0, 3, 2], [1, 0, 2], [2, 0, 3], [2, 1, 0], [3, 2, 0], [0, 2, 1]])


def turn_hue(pixels_BHWC: Tensor, turns_B: Tensor) -> Tensor:
    """The hue moved by a share of the circle; images that are not of three channels have none and stay as they are.

    >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 1, 1, 3)
    >>> turn_hue(red, torch.tensor([0.5])).flatten().tolist()
    [0, 255, 252]
    """
    if pixels_BHWC.shape[-1] != 3:
        return pixels_BHWC
    hue, saturation, value = _to_hsv(pixels_BHWC)
    moved_B11 = (turns_B * 255).to(torch.int32)[:, None, None]
    return _to_rgb((hue + moved_B11) % 256, saturation, value)


def _to_hsv(pixels_BHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three (B, H, W) int32 of 0 to 255, as Pillow rounds them."""
    red, green, blue = pixels_BHWC.to(torch.float32).unbind(-1)
    value = pixels_BHWC.amax(-1).to(torch.float32)
    span = value - pixels_BHWC.amin(-1).to(torch.float32)
    some = span.clamp(min=1)
    from_red, from_green, from_blue = ((value - one) / some for one in (red, green, blue))
    sixths = torch.where(
        red == value,
        from_blue - from_green,
        torch.where(green == value, 2 + from_red - from_blue, 4 + from_green - from_red),
    )
    hue = torch.where(span > 0, (sixths / 6 + 1) % 1, 0)
    saturation = span / value.clamp(min=1)
    return (hue * 255).to(torch.int32), (saturation * 255).to(torch.int32), value.to(torch.int32)


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sixths = hue.to(torch.float32) * 6 / 255
    sector = sixths.floor()
    part, share, full = sixths - sector, saturation.to(torch.float32) / 255, value.to(torch.float32)
    # Half up: Pillow rounds half away from zero.
    low, falling, rising = (
        (full * (1 - share * lost) + 0.5).floor().clamp(0, 255) for lost in (torch.ones_like(part), part, 1 - part)
    )
    levels = torch.stack([full, falling, low, rising], dim=-1).to(torch.uint8)
    return levels.gather(-1, to_device(_PLACES, hue.device)[sector.to(torch.int64) % 6])
