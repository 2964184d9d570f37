"""What a slot entry gets, a `SlotSetup` when it is built and a `BatchContext` at every call, and returns: `SlotOutput`.

Shapes: B batch, C classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distail.errors import MethodError
from distail.functional import class_log_odds, class_log_share
from distail.functional.checks import log_probabilities
from distail.outputs import Outputs

Reduce = Callable[[Tensor], Tensor]
NATURAL, BALANCED, MIXED = "natural", "balanced", "mixed"
"""Which posterior an entry aims at: that with the class priors of the training data, or with equal priors."""


@dataclass(frozen=True)
class SlotSetup:
    """What is known before training.

    Attributes:
        class_counts: training samples of each class.
        samples: where a sample has several classes, how many samples there are; else None.
    """

    class_counts: tuple[int, ...]
    temperature: float = 4.0
    student_dim: int | None = None
    teacher_dim: int | None = None
    samples: int | None = None

    @property
    def multi_label(self) -> bool:
        """Whether a sample has several classes: labels are (B, C) bool, and each logit the log odds of one class."""
        return self.samples is not None

    def log_prior(self) -> Tensor:
        """What the logits of a network hold of the classes' frequencies: log shares, or log odds; (C,) float64."""
        if self.samples is None:
            return class_log_share(self.class_counts)
        return class_log_odds(self.class_counts, self.samples)

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    def width(self, whose: str, reader: str) -> int:
        """`student_dim` or `teacher_dim`, or an error that says which entry reads those features."""
        width: int | None = getattr(self, f"{whose}_dim")
        if width is None:
            raise MethodError(f"{reader} reads the {whose}'s features: give {whose}_dim=, their width")
        return width


@dataclass(frozen=True)
class Progress:
    """How far training is; without an epoch, at its end."""

    epoch: int | None = None
    epochs: int | None = None

    @property
    def fraction(self) -> float:
        """``epoch / epochs``, epochs from 0; 1 at the end.

        >>> Progress(160, 200).fraction, Progress().fraction
        (0.8, 1.0)
        """
        return 1.0 if self.epoch is None or self.epochs is None else self.epoch / self.epochs

    @property
    def fraction_with_this_epoch(self) -> float:
        """``(epoch + 1) / epochs``: 1 in the last epoch.

        >>> Progress(0, 4).fraction_with_this_epoch, Progress(3, 4).fraction_with_this_epoch
        (0.25, 1.0)
        """
        return 1.0 if self.epoch is None or self.epochs is None else (self.epoch + 1) / self.epochs

    def reached(self, share: float) -> bool:
        """Whether this share of training is over. A share of 1 is never reached, not even at the end.

        >>> Progress(159, 200).reached(0.8), Progress(160, 200).reached(0.8), Progress().reached(1.0)
        (False, True, False)
        """
        return share < 1.0 and self.fraction >= share


@dataclass(frozen=True)
class Requirements:
    """What a run must supply for a method.

    Attributes:
        teacher: outputs of a teacher at every call.
        student_features, teacher_features: `Outputs.features` on that side, and its width at creation.
        index: the sample indices, `index=`.
        class_means: one call of `prepare` with the teacher's outputs over the training data.
        memory: `memory_state` must be saved and restored in addition to `state_dict`.
        cosine_classifier: logits that are scaled cosines of features and class directions.
    """

    teacher: bool = False
    student_features: bool = False
    teacher_features: bool = False
    index: bool = False
    class_means: bool = False
    memory: bool = False
    cosine_classifier: bool = False

    def __or__(self, other: Requirements) -> Requirements:
        return Requirements(**{name: value or getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class SlotOutput:
    """What a slot entry returns.

    Attributes:
        values: the repaired logits (B, C) of a target repair; else one number per sample (B,).
        auxiliary: further losses, one per sample (B,), by name.
        statistics: detached scalars for logging; never part of the total.
        student: for a target repair that changes both sides: the student's logits (B, C) for the following repairs and
            the divergence. Supervised losses, weights and representations use the unchanged logits.
    """

    values: Tensor
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    student: Tensor | None = None


class _GlobalSum(torch.autograd.Function):
    """A sum over all processes, whose gradient is summed over them as well: each has its own loss of the same sum."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, reduce: Reduce) -> Tensor:
        ctx.reduce = reduce
        return reduce(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.reduce(gradients[0].contiguous()), None


def identity_reduce(statistic: Tensor) -> Tensor:
    """The default `Method.reduce`: one process sees the whole batch."""
    return statistic


class BatchContext:
    """One batch as every slot entry sees it: logits in at least float32, the teacher detached.

    Attributes:
        student, teacher: `Outputs`; the teacher is None for a method without one.
        target: (B,) int64; (B, C) bool for multi-label data.
        index: (B,) int64 sample indices, or None.
        temperature: that of the method.
        progress: how far training is. Reading its numbers in `forward` makes `torch.compile` compile once per epoch:
            an entry better keeps what it derives from them, in its own `begin_epoch(progress)`.
        reduce: sums a tensor over the global batch, without gradient.
        supervised_losses: (B,), once the supervised entry has been called.
        repaired_logits: (B, C), the teacher's after all repairs, once they have been.
    """

    supervised_losses: Tensor
    repaired_logits: Tensor

    def __init__(
        self,
        student: Outputs,
        teacher: Outputs | None,
        target: Tensor,
        index: Tensor | None,
        temperature: float,
        progress: Progress,
        reduce: Reduce,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.target = target
        self.index = index
        self.temperature = temperature
        self.progress = progress
        self.reduce = reduce
        self._student_log_probabilities: dict[float, Tensor] = {}

    def student_log_probabilities(self, temperature: float = 1.0) -> Tensor:
        """``log softmax(z_s / T)``, computed once and shared by all entries."""
        known = self._student_log_probabilities
        if temperature not in known:
            known[temperature] = log_probabilities(self.student.logits, temperature)
        return known[temperature]

    @property
    def given_teacher(self) -> Outputs:
        assert self.teacher is not None, "Method.forward checks it"
        return self.teacher

    @property
    def student_features(self) -> Tensor:
        assert self.student.features is not None, "Method.forward checks it"
        return self.student.features

    @property
    def teacher_features(self) -> Tensor:
        assert self.given_teacher.features is not None, "Method.forward checks it"
        return self.given_teacher.features

    def with_student_logits(self, logits_BC: Tensor) -> BatchContext:
        """The same batch with other logits of the student."""
        changed = copy(self)
        changed.student = Outputs(logits_BC, self.student.features)
        changed._student_log_probabilities = {}
        return changed

    def global_sum(self, values: Tensor) -> Tensor:
        """A tensor summed over the processes of the batch, with its gradient."""
        if self.reduce is identity_reduce:
            return values
        total: Tensor = _GlobalSum.apply(values, self.reduce)  # type: ignore[no-untyped-call]
        return total

    def batch_mean(self, values_B: Tensor) -> Tensor:
        """The mean over the global batch."""
        total, count = self.reduce(torch.stack((values_B.sum(), values_B.new_full((), len(values_B))))).unbind()
        return total / count


class Terms(Mapping[str, Tensor]):
    """A method's loss: its terms by name, each a scalar that already carries its weight.

    Attributes:
        losses: by name, the weighted losses (B,) that each term is the mean of.
        per_sample: (B,), the sum of the terms of each sample.
        total: the mean of `per_sample`, which is the sum of the terms.
        statistics: detached scalars for the log, by name; not part of the total.

    >>> terms = Terms({"supervised": torch.tensor([1.0, 3.0]), "distillation": torch.tensor([0.5, 0.5])})
    >>> terms["supervised"], terms.total, list(terms)
    (tensor(2.), tensor(2.5000), ['supervised', 'distillation'])
    """

    def __init__(self, losses_B: Mapping[str, Tensor], statistics: Mapping[str, Tensor] | None = None) -> None:
        self.losses: dict[str, Tensor] = dict(losses_B)
        self._terms = {name: values_B.mean() for name, values_B in self.losses.items()}
        parts = list(self.losses.values())
        self.per_sample: Tensor = parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)
        self.total: Tensor = self.per_sample.mean()
        self.statistics: dict[str, Tensor] = dict(statistics or {})

    def __getitem__(self, name: str) -> Tensor:
        return self._terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __repr__(self) -> str:
        return f"Terms(total={self.total!r}, {', '.join(f'{name}={value!r}' for name, value in self.items())})"


@dataclass(frozen=True)
class TermWeights:
    """The weights that every method takes; its loss is the weighted sum of its terms."""

    supervised: float = 1.0
    distillation: float = 1.0
    representation: float = 1.0
    auxiliary: float = 1.0
