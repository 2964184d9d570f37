"""Whether loss and teacher stay finite, watched without making a GPU wait."""

from __future__ import annotations

import torch
from torch import Tensor

from distail.models.outputs import Outputs

NEVER = 2**62
"""A step that no training reaches."""


class FiniteWatch:
    """Remembers the first step at which the loss, or the teacher, was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((2,), NEVER, dtype=torch.int64, device=device)

    def note(self, step: int, loss: Tensor, teacher: Outputs | None) -> None:
        """Take up one step's loss and teacher."""
        finite = torch.isfinite(loss.detach())
        teacher_finite = torch.isfinite(teacher.logits).all() if teacher is not None else torch.ones_like(finite)
        bad = torch.where(torch.stack([finite, teacher_finite]), NEVER, step)
        self._first = torch.minimum(self._first, bad)

    def first(self) -> list[int]:
        """The first bad step of the loss and of the teacher, or `NEVER`; waits for the device."""
        steps: list[int] = self._first.tolist()
        return steps
