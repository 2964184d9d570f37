"""Several networks as one: the mean of what they say.

Shapes: M members, B batch, C classes; in `BCHW`, C channels of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distail.models.input_normalization import InputNormalization, rescaled
from distail.outputs import logits_in


class Ensemble(nn.Module):
    """Networks of the same classes; images, or other inputs, to (B, C) logits.

    The weights of all, and how each wants its images normalized, are in one `state_dict`.

    Args:
        members: the networks, each of which gives logits.
        conversions: from the normalization of the images to that of each member.
        average: `logits` takes their mean; `probabilities` the logarithm of the mean of their softmaxes. What a repair
            adds to logits, such as `debias`, it adds to the mean of logits as it would to each.

    >>> same = InputNormalization([0.5], [0.2], [0.5], [0.2])
    >>> members = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2)]
    >>> images = torch.ones(1, 1, 2, 2)
    >>> said = Ensemble(members, [same, same])(images)
    >>> torch.allclose(said, (members[0](images) + members[1](images)) / 2)
    True
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, members: Sequence[nn.Module], conversions: Sequence[InputNormalization], average: str = "logits"
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.average = average
        self.register_buffer("scale", torch.stack([conversion.scale for conversion in conversions]))
        self.register_buffer("shift", torch.stack([conversion.shift for conversion in conversions]))

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        said = []
        for member, scale, shift in zip(self.members, self.scale, self.shift, strict=True):
            rescaled_inputs = [rescaled(each, scale, shift) for each in inputs]
            logits_BC = logits_in(member(*rescaled_inputs, **named))
            assert isinstance(logits_BC, Tensor)
            said.append(logits_BC)
        said_MBC = torch.stack(said)
        if self.average == "logits":
            return said_MBC.mean(dim=0)
        return said_MBC.float().log_softmax(dim=2).logsumexp(dim=0) - math.log(len(said_MBC))
