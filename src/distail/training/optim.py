"""The optimizer, and the learning rate as a pure function of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from distail.config.schema import Schedule, Training
from distail.training.parameter_groups import parameter_groups

# The shape of torch.optim.lr_scheduler.OneCycleLR: start at a 25th, end at a 10,000th of the start.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


def build_optimizer(
    network: nn.Module, trained: Sequence[Iterable[nn.Parameter]], training: Training, classifiers: Sequence[str] = ()
) -> torch.optim.Optimizer:
    """The optimizer that `training` names.

    Args:
        network: the bare network.
        trained: of the network and of its method what is trained.
        classifiers: the paths of its classifiers, where layers have rates of their own.
    """
    of_network, of_method = trained
    groups = parameter_groups(network, of_network, of_method, training, classifiers)
    # One kernel for all parameters; None leaves the choice to torch.
    fused = next(network.parameters()).is_cuda or None
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate, weight_decay=training.weight_decay, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
        fused=fused,
    )


def learning_rate_factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """What the base learning rate is multiplied by at `step` (counted from 0 over the whole training).

    Linear warm-up, where asked for, stands in for the schedule in the first `warmup_epochs` epochs: step s gets
    ``(s + 1) / warm-up steps``. `cosine` then begins; `step` and `one-cycle` go on as if they had begun at step 0.

    >>> schedule = Schedule(name="step", milestones=(160, 180), factors=(0.01, 0.0001), warmup_epochs=5)
    >>> [learning_rate_factor(schedule, epoch * 10, 10, 200) for epoch in (0, 5, 159, 160, 180)]
    [0.02, 1.0, 1.0, 0.01, 0.0001]
    """
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if step + 1 < warmup_steps:
        return (step + 1) / warmup_steps
    steps = epochs * steps_per_epoch
    if schedule.name == "step":
        passed = bisect_right(schedule.milestones, step / steps_per_epoch)
        return 1.0 if passed == 0 else schedule.factors[passed - 1]
    if schedule.name == "cosine":
        return _cosine_between(1.0, 0.0, (step - warmup_steps) / max(1.0, steps - warmup_steps))
    if schedule.name == "one-cycle":
        return _one_cycle(schedule.rise, step, steps)
    return 1.0


def _one_cycle(rise: float, step: int, steps: int) -> float:
    peak = rise * steps - 1
    if step <= peak:
        return _cosine_between(ONE_CYCLE_START, 1.0, step / peak if peak else 1.0)
    return _cosine_between(1.0, ONE_CYCLE_END, (step - peak) / max(1.0, steps - 1 - peak))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2
