"""From images of any size to what a network was trained on, in tensor operations that every exporter knows.

Shapes: B batch, C channels, H and W of the images given, S a side of the network's images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distail.models.description import Description


class Preprocess(nn.Module):
    """Levels (B, C, H, W) of 0 to 255, of any height and width, resized and normalized: (B, C, height, width) float32.

    The rule of `distail.models.description.RESIZE`, as images are resized for training: a triangle filter as wide as
    the factor (Pillow's bilinear filter), first across, then down, as two products with matrices, so that it can be
    exported with height and width left open. Images of the right size go through unchanged, bit for bit.

    `rounded`, by default where levels are not floats: they are rounded after each of the two, as Pillow does it. Of
    larger images most levels are then those of Pillow, and none differs by more than one.

    >>> told = Description("resnet8", "conv", "linear", ("cat", "dog"), 1, 2, 2, (0.0,), (1.0,))
    >>> Preprocess(told)(torch.tensor([[[[0.0, 51.0], [102.0, 255.0]]]]), rounded=True)
    tensor([[[[0.0000, 0.2000],
              [0.4000, 1.0000]]]])
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.height, self.width = description.height, description.width
        shift_C = torch.tensor([value * 255 for value in description.mean])
        scale_C = torch.tensor([1 / (value * 255) for value in description.std])
        self.register_buffer("shift", shift_C[:, None, None], persistent=False)
        self.register_buffer("scale", scale_C[:, None, None], persistent=False)

    def forward(self, levels_BCHW: Tensor, rounded: bool | None = None) -> Tensor:
        rounded = not levels_BCHW.is_floating_point() if rounded is None else rounded
        return self.normalized(self.resized(levels_BCHW.float(), rounded))

    def normalized(self, levels_BCHW: Tensor) -> Tensor:
        """Levels of the network's size as numbers that it takes."""
        normalized: Tensor = (levels_BCHW - self.shift) * self.scale
        return normalized

    def resized(self, levels_BCHW: Tensor, rounded: bool) -> Tensor:
        """Levels still, of the network's height and width."""
        height, width = levels_BCHW.shape[-2:]
        # Halves decide how many rows there are to cut from: float32 would place some on the wrong side.
        high, wide = (self.shift.new_ones((), dtype=torch.float64) * size for size in (height, width))
        # What the image is divided by: the smaller of two ratios, as a product, since a ratio would be rounded.
        by_height = high * self.width <= wide * self.height
        own, given = torch.where(by_height, self.height, self.width), torch.where(by_height, high, wide)
        down_SH = _matrix(height, high, torch.round(high * own / given).clamp_min(self.height), self.height)
        across_SW = _matrix(width, wide, torch.round(wide * own / given).clamp_min(self.width), self.width)
        across = levels_BCHW @ across_SW.to(levels_BCHW.dtype).T
        if rounded:
            across = torch.floor(across + 0.5)
        both = down_SH.to(levels_BCHW.dtype) @ across
        return torch.floor(both + 0.5) if rounded else both


def _matrix(length: int, given: Tensor, resized: Tensor, side: int) -> Tensor:
    """How much each of `length` pixels counts in each of the `side` in the middle of `resized`: (S, length) float64."""
    factor = given / resized
    first = torch.floor((resized - side) / 2)
    like = {"dtype": torch.float64, "device": given.device}
    center_S1 = ((torch.arange(side, **like) + first + 0.5) * factor)[:, None]  # type: ignore[call-overload]
    place_L = torch.arange(length, **like) + 0.5  # type: ignore[call-overload]
    weight_SL = (1 - (place_L - center_S1).abs() / factor.clamp_min(1)).clamp_min(0)
    normalized: Tensor = weight_SL / weight_SL.sum(1, keepdim=True)
    return normalized
