"""One training step, which knows nothing of methods, and the frozen network it learns from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distail.data.batches import Batch
from distail.errors import TrainingError
from distail.methods.method import Method, Terms
from distail.outputs import Outputs
from distail.training.machine import Machine

Teacher = Callable[[Batch], Outputs]
"""What a teacher says of a batch: a network that looks at its images, or what was stored of it."""


class TrainingStep(nn.Module):
    """Student and method as one module, so that whatever wraps it (DDP) sees all that is trained.

    Args:
        compile_size: compile the student for batches of this size: a second compilation, for the last batch of
            an epoch, would cost more than it saves. None: do not compile.
    """

    def __init__(self, student: nn.Module, method: Method, machine: Machine, compile_size: int | None = None) -> None:
        super().__init__()
        self.student = student
        self.method = method
        self._machine = machine
        self._compile_size = compile_size
        self._compiled = None if compile_size is None else torch.compile(student.forward)

    def forward(self, images: Tensor, target: Tensor, index: Tensor, teacher: Outputs | None) -> tuple[Tensor, Terms]:
        """The loss and the terms that it is made of; apart, because DDP looks for what to differentiate."""
        compiled = self._compiled if len(images) == self._compile_size else None
        try:
            with self._machine.autocast():
                student = (compiled or self.student)(images)
        except ValueError as error:
            if len(images) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                "batch normalisation cannot learn from a single image, of which this network's last maps have one "
                "pixel; expected training.batch_size of at least 2, and as many training images"
            ) from None
        terms: Terms = self.method(student, teacher, target, index=index)
        return terms.total, terms


def frozen(network: nn.Module, machine: Machine) -> Teacher:
    """The network as a teacher: evaluation mode, no gradient, its outputs ordinary tensors."""
    network.eval().requires_grad_(False)

    def teacher(batch: Batch) -> Outputs:
        with torch.inference_mode(), machine.autocast():
            outputs: Outputs = network(batch.images)
        # Tensors made under inference_mode cannot be saved for a backward pass; a copy of the logits can.
        features = None if outputs.features is None else outputs.features.clone()
        return Outputs(outputs.logits.clone(), features)

    return teacher
