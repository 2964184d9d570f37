"""Images of one size to squares of another, for sources that are stored as arrays."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distail.data.images import Images, LabelledImages

_CHUNK = 4096


def resized(data: Images, side: int | None) -> Images:
    """The shorter side resized (bilinear, with antialiasing), the centre cut to ``side`` x ``side``; None leaves all.

    >>> resized(LabelledImages(torch.zeros(1, 3, 4, 8, dtype=torch.uint8), torch.tensor([0])), 2).images.shape
    torch.Size([1, 3, 2, 2])
    """
    _, height, width = data.image_shape
    if side is None or (height, width) == (side, side) or not len(data):
        return data
    assert isinstance(data, LabelledImages), "files are resized as they are decoded"
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    parts = [
        _interpolated(part, size)[..., top : top + side, left : left + side]
        for part in torch.split(data.images, _CHUNK)
    ]
    return LabelledImages(torch.cat(parts), data.labels)


def _interpolated(images_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    floats = F.interpolate(images_NCHW.float(), size, mode="bilinear", antialias=True, align_corners=False)
    return floats.round_().clamp_(0, 255).to(torch.uint8)
