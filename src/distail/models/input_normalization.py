"""From one normalization of inputs to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distail.errors import ModelError


class InputNormalization(nn.Module):
    """Images (N, C, H, W), or arrays (N, C, ...), renormalized from one mean and standard deviation to others.

    All four are per channel, in 0..1 units for images; without any, inputs stay as they are. The constants are not part
    of the `state_dict`: a network's weights stay the same whatever its images were normalized with.

    Raises:
        ModelError: the four are not of one length, or a standard deviation is not positive.

    >>> convert = InputNormalization(mean_from=[0.5], std_from=[0.25], mean_to=[0.0], std_to=[1.0])
    >>> convert(torch.tensor([[[[-2.0, 0.0, 2.0]]]])).tolist()
    [[[[0.0, 0.5, 1.0]]]]
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        mean_from: Sequence[float],
        std_from: Sequence[float],
        mean_to: Sequence[float],
        std_to: Sequence[float],
    ) -> None:
        super().__init__()
        given = {"mean_from": mean_from, "std_from": std_from, "mean_to": mean_to, "std_to": std_to}
        values = {name: torch.tensor(list(value), dtype=torch.float64) for name, value in given.items()}
        widths = {name: len(value) for name, value in values.items()}
        if len(set(widths.values())) != 1:
            raise ModelError(f"a normalization needs one value per channel everywhere, got {widths}")
        if not (values["std_from"] > 0).all() or not (values["std_to"] > 0).all():
            raise ModelError(f"standard deviations must be positive, got {list(std_from)} and {list(std_to)}")
        scale_C = values["std_from"] / values["std_to"]
        shift_C = (values["mean_from"] - values["mean_to"]) / values["std_to"]
        self.register_buffer("scale", scale_C.float()[:, None, None], persistent=False)
        self.register_buffer("shift", shift_C.float()[:, None, None], persistent=False)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return rescaled(images_NCHW, self.scale, self.shift)


def rescaled(inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`inputs * scale + shift` by channel, whatever the other dimensions; without channels they stay as they are."""
    if not scale.numel():
        return inputs
    shape = (-1, *(1,) * (inputs.ndim - 2))
    return inputs * scale.view(shape) + shift.view(shape)
