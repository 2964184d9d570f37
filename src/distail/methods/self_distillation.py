"""The student as its own teacher: its predictions of each sample in the epoch before.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distail.errors import MethodError
from distail.functional.checks import check_number, check_tensor, check_whole
from distail.methods.context import Progress, Reduce, Requirements, SlotSetup
from distail.methods.memory_bank import MemoryBank
from distail.methods.modules import FixedDtypeBuffer

LEAST_PROBABILITY = 1e-12  # stands for the zeros of half precision, whose logarithm is infinite


class SelfDistillation(nn.Module):
    """The teacher is the student's own prediction in the epoch before [paper: IPWD's one-stage form, built on PS-KD].

    ``L_e = (1 - a_e) * supervised + a_e * distillation``, ``a_e = final_weight * (e + 1) / E``; a sample that was never
    seen before keeps the plain supervised loss, so that epoch 0 is plain. `begin_epoch` must be called every epoch.

    Predictions are float16 probabilities at temperature 1 (`MemoryBank`): an epoch reads those of the epochs before
    and writes its own, so that a sample drawn twice reads the same twice. Samples that were not drawn keep their older
    prediction.

    Args:
        final_weight: a at the end of training.
        num_samples: N, one more than the largest index; by default the sum of the class counts.
    """

    needs = Requirements(index=True, memory=True)
    composition_defaults: ClassVar[dict[str, Any]] = {
        "temperature": 1.0,
        "supervised_weight": 1.0,
        "distillation_weight": 1.0,
        "start": 0.5,
    }

    def __init__(self, setup: SlotSetup, *, final_weight: float = 0.8, num_samples: int | None = None) -> None:
        super().__init__()
        size = check_whole("num_samples", sum(setup.class_counts) if num_samples is None else num_samples, least=1)
        self.final_weight = check_number("final_weight", final_weight, least=0.0, most=1.0)
        self.share = FixedDtypeBuffer(torch.tensor(self.final_weight, dtype=torch.float64), persistent=False)
        self.memory = MemoryBank(size, setup.num_classes)

    def begin_epoch(self, progress: Progress) -> None:
        self.share.value.fill_(self.final_weight * progress.fraction_with_this_epoch)

    def check(self, index: Tensor | None, target: Tensor, reader: str) -> None:
        if index is None:
            raise MethodError(f"{reader} stores predictions per sample; expected the sample indices, index=")
        check_tensor(index, "index", "an int64 tensor of shape (B,)")
        if index.shape != target.shape or index.dtype != torch.int64:
            raise MethodError(f"index is {index.dtype} of shape {tuple(index.shape)}; expected int64 of shape (B,)")
        self.memory.check(index)
        if not torch.compiler.is_compiling() and self.training and self.memory.is_new:
            warnings.warn(
                "begin_epoch(epoch, epochs) was never called: without an epoch before, every sample keeps its plain "
                "supervised loss",
                stacklevel=5,
            )

    def advance(self, epoch: int, reduce: Reduce) -> None:
        if epoch > 0 and self.memory.is_new:
            warnings.warn(
                f"epoch {epoch} begins, and nothing is remembered of those before, so that every sample keeps its "
                "plain supervised loss: a resumed training needs load_memory_state as well as load_state_dict",
                stacklevel=3,
            )
        self.memory.advance(epoch, reduce)

    def recall(self, index: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, C) of the epoch before, and the share (B,) of the loss that they take over."""
        p_BC, is_known_B = self.memory.read(index)
        return p_BC.to(dtype).clamp_min(LEAST_PROBABILITY).log(), self.share.value.to(dtype) * is_known_B

    @torch.no_grad()
    def remember(self, index: Tensor, log_p_BC: Tensor) -> None:
        """Keep this epoch's predictions."""
        self.memory.write(index, log_p_BC.exp())


TEACHERS: dict[str, type[nn.Module]] = {"previous_epoch": SelfDistillation}
