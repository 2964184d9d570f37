"""A target repair of your own: the teacher's logits clipped at a multiple of their standard deviation."""

import numpy as np
import torch
from torch import Tensor, nn

from distail import Outputs, create_method
from distail.functional.checks import check_number
from distail.methods.context import BatchContext, SlotOutput, SlotSetup
from distail.methods.targets import TARGETS


class Clip(nn.Module):
    """Clip every logit at ``deviations`` times the standard deviation of the sample [ours, an example]."""

    def __init__(self, setup: SlotSetup, *, deviations: float = 2.0) -> None:
        super().__init__()
        self.deviations = check_number("deviations", deviations, above=0.0)

    def forward(self, context: BatchContext, logits_BC: Tensor) -> SlotOutput:
        std_B1, mean_B1 = torch.std_mean(logits_BC, dim=1, correction=0, keepdim=True)
        bound_B1 = self.deviations * std_B1
        return SlotOutput(torch.clamp(logits_BC, mean_B1 - bound_B1, mean_B1 + bound_B1))


TARGETS["clip"] = Clip

# It composes at once, and its parameters are checked by name.
method = create_method({"targets": [{"name": "clip", "deviations": 1.0}, "swap"]}, class_counts=[40, 20, 4])
student, teacher = Outputs(torch.zeros(2, 3)), Outputs(torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0]]))
print(method(student, teacher, torch.tensor([0, 2])))

# Its test: the same in float64 numpy, written from the paper and not from the code above.
logits = np.array([[9.0, 0.0, 0.0]])
mean, bound = logits.mean(axis=1, keepdims=True), logits.std(axis=1, keepdims=True)
expected = logits.clip(mean - bound, mean + bound)
context = None  # this entry reads nothing of the batch's context
found = Clip(SlotSetup((40, 20, 4)), deviations=1.0)(context, torch.from_numpy(logits)).values
np.testing.assert_allclose(found, expected)
