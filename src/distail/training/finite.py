"""Whether loss and teacher stay finite, watched without making a GPU wait.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.errors import TrainingError
from distail.evaluation.checks import by_rows
from distail.outputs import Outputs

_ADVICE = (
    "Try a lower training.learning_rate, training.gradient_clip: 5 or, where it was bf16, trainer.precision=fp32, with "
    "another output."
)
NEVER = 2**62
"""A step that no training reaches."""


class NonFiniteDetector:
    """Remembers the first step at which the loss, or the teacher, was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((2,), NEVER, dtype=torch.int64, device=device)

    def update(self, step: int, finite: Tensor) -> None:
        """Take up the `finite_flags` of one step."""
        self._first = torch.minimum(self._first, torch.where(finite, NEVER, step))

    def first_steps(self) -> list[int]:
        """The first bad step of the loss and of the teacher, or `NEVER`; waits for the device."""
        steps: list[int] = self._first.tolist()
        return steps


def finite_flags(loss: Tensor, teacher: Outputs | None) -> Tensor:
    """Whether the loss, and the teacher's logits, are finite: (2,) bool.

    >>> finite_flags(torch.tensor(float("nan")), None).tolist()
    [False, True]
    """
    finite = torch.isfinite(loss.detach())
    teacher_finite = torch.isfinite(teacher.logits).all() if teacher is not None else torch.ones_like(finite)
    return torch.stack([finite, teacher_finite])


def not_finite_error(
    stage: str, bad_loss: int, bad_teacher: int, steps_per_epoch: int, kept: Sequence[int]
) -> TrainingError:
    """What the user is told: which of the two first was not finite, where, and which checkpoint is left.

    Args:
        bad_loss, bad_teacher: the first bad steps.
        kept: the steps that have a checkpoint, rising.
    """
    step = min(bad_loss, bad_teacher)
    what = "the teacher's logits are" if bad_teacher == step else "the loss is"
    good = f"the checkpoint after step {kept[-1]} is kept" if kept else "no checkpoint had been written yet"
    return TrainingError(
        f"{stage}: {what} not finite at step {step} (epoch {step // steps_per_epoch + 1}, "
        f"step {step % steps_per_epoch + 1} of {steps_per_epoch}); {good}. {_ADVICE}"
    )


def check_logits(logits_NC: Tensor, whose: str) -> None:
    """Let pass what can be evaluated.

    Args:
        whose: what the message begins with.

    Raises:
        TrainingError: logits of some images are not finite, as the last step before may leave them.
    """
    bad_N = by_rows(lambda rows: ~torch.isfinite(rows).all(dim=1), logits_NC, dtype=torch.bool)
    if bad_N.any():
        raise TrainingError(
            f"{whose}: the logits of {int(bad_N.sum())} of {len(bad_N)} images are not finite. {_ADVICE}"
        )
