"""The heads of a trained student: its own, and IPWD's second one where the run's checkpoint still has it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from distail.evaluation.sample_weights import StudentHeads
from distail.models import FeatureTap, Outputs
from distail.objective.heads import project
from distail.run_folder import RunFolder
from distail.training.predict import Classifier

SECOND_HEAD = "method.sample_weights.cls_head"


def student_heads(student: FeatureTap, run: RunFolder, predict: Callable[[Classifier], Tensor]) -> StudentHeads:
    """The student's logits, and those of its label-only head where it was trained with one.

    The second head lives in training only: it is in the run's newest checkpoint, not in the exported weights.
    """
    head = _second_head(run)
    if head is None:
        return StudentHeads(predict(student))
    first_NC, second_NC = predict(_BothHeads(student, head)).chunk(2, dim=1)
    return StudentHeads(first_NC, second_NC)


class _BothHeads(nn.Module):
    """A tapped student that gives the logits of both heads beside each other."""

    def __init__(self, student: FeatureTap, head: nn.Linear) -> None:
        super().__init__()
        self.student, self.head = student, head.to(next(student.parameters()).device)
        self.num_classes = 2 * student.num_classes

    def forward(self, images_NCHW: Tensor) -> Outputs:
        outputs = self.student(images_NCHW)
        second_BC = project(self.head, outputs.features)
        return Outputs(torch.cat((outputs.logits.to(second_BC.dtype), second_BC), dim=1))


def _second_head(run: RunFolder) -> nn.Linear | None:
    newest = sorted(run.checkpoints("student").glob("step-*.safetensors"))[-1:]
    for path in newest:
        try:
            with safe_open(path, framework="pt") as file:
                weight, bias = (file.get_tensor(f"{SECOND_HEAD}.{name}") for name in ("weight", "bias"))
        except (SafetensorError, OSError):
            return None
        head = nn.Linear(weight.shape[1], weight.shape[0])
        head.load_state_dict({"weight": weight, "bias": bias})
        return head
    return None
