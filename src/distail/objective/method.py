"""A method: five slots, one forward pass, one place where losses per sample become terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distail.errors import MethodError
from distail.functional.numerics import at_least_float32, check_logits, check_range, check_same_shape, check_target
from distail.models.outputs import Outputs
from distail.objective.context import Context, Needs, Progress, Reduce, Setup


class Terms(Mapping[str, Tensor]):
    """A method's loss: its terms by name, each a scalar that already carries its weight.

    Attributes:
        per_sample: (B,), the sum of the terms of each sample.
        total: the mean of `per_sample`, which is the sum of the terms.
        statistics: detached scalars for the log, by name; not part of the total.

    >>> terms = Terms({"supervised": torch.tensor([1.0, 3.0]), "distillation": torch.tensor([0.5, 0.5])})
    >>> terms["supervised"], terms.total, list(terms)
    (tensor(2.), tensor(2.5000), ['supervised', 'distillation'])
    """

    def __init__(self, losses_B: Mapping[str, Tensor], statistics: Mapping[str, Tensor] | None = None) -> None:
        self._terms = {name: values_B.mean() for name, values_B in losses_B.items()}
        parts = list(losses_B.values())
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
        return f"Terms({', '.join([*self._terms])})"


@dataclass(frozen=True)
class TermWeights:
    """The weights that every method takes; its loss is the weighted sum of its terms."""

    supervised: float = 1.0
    distillation: float = 1.0
    representation: float = 1.0
    auxiliary: float = 1.0


def whole_batch(statistic: Tensor) -> Tensor:
    """The default `Method.reduce`: one process sees the whole batch."""
    return statistic


class Method(nn.Module):
    """A knowledge distillation method, composed of slot entries; `create_method` makes one.

    Attributes:
        name: the preset's name, or "composition".
        needs: what a run must supply.
        reduce: sums a tensor over the global batch; a distributed loop replaces the identity by its all-reduce.
        teacher_supervised: the supervised entry that the method's own paper trains its teacher with.
    """

    def __init__(
        self,
        name: str,
        setup: Setup,
        weights: TermWeights,
        *,
        supervised: nn.Module,
        targets: Iterable[nn.Module] = (),
        divergence: nn.Module | None = None,
        sample_weights: nn.Module | None = None,
        representation: nn.Module | None = None,
        teacher_supervised: str = "ce",
    ) -> None:
        super().__init__()
        self.name = name
        self.class_counts = setup.class_counts
        self.temperature = setup.temperature
        self.weights = weights
        self.teacher_supervised = teacher_supervised
        self.supervised = supervised
        self.targets = nn.ModuleList(targets)
        self.divergence = divergence
        self.sample_weights = sample_weights
        self.representation = representation
        self.reduce: Reduce = whole_batch
        self.progress = Progress()
        needs = Needs(teacher=divergence is not None)
        for module in self.modules():
            needs |= getattr(module, "needs", Needs()) if module is not self else Needs()
        self.needs = needs

    def forward(
        self, student: Outputs, teacher: Outputs | None, target: Tensor, *, index: Tensor | None = None
    ) -> Terms:
        """The terms of one batch.

        Args:
            student: `Outputs`: logits (B, C), features (B, D) where `needs.student_features`; half and bfloat16 logits are
                promoted to float32, also inside autocast.
            teacher: the same of the teacher, never written to and never given a gradient; None where there is none.
            target: (B,) int64 labels.
            index: (B,) int64 sample indices, where `needs.index`.

        Raises:
            MethodError: something that `needs` names is missing, or shapes or dtypes do not fit, before any arithmetic.
        """
        self._check(student, teacher, target, index)
        with torch.autocast(student.logits.device.type, enabled=False):
            return self._terms(student, teacher, target, index)

    def _terms(self, student: Outputs, teacher: Outputs | None, target: Tensor, index: Tensor | None) -> Terms:
        logits_BC = at_least_float32(student.logits)
        context = Context(
            student=Outputs(logits_BC, student.features),
            teacher=_detached(teacher, logits_BC.dtype) if self.needs.teacher and teacher is not None else None,
            target=target,
            index=index,
            temperature=self.temperature,
            progress=self.progress,
            reduce=self.reduce,
        )
        replies = [self.supervised(context)]
        losses_B = {"supervised": self.weights.supervised * replies[0].values}
        if self.divergence is not None:
            target_BC = context.given_teacher.logits
            for repair in self.targets:
                replies.append(repair(context, target_BC))
                target_BC = replies[-1].values
            replies.append(self.divergence(context, target_BC))
            distance_B = replies[-1].values
            if self.sample_weights is not None:
                replies.append(self.sample_weights(context))
                distance_B = replies[-1].values * distance_B
            losses_B["distillation"] = self.weights.distillation * distance_B
        if self.representation is not None:
            replies.append(self.representation(context))
            losses_B["representation"] = self.weights.representation * replies[-1].values
        auxiliary = [values_B for reply in replies for values_B in reply.auxiliary.values()]
        if auxiliary:
            losses_B["auxiliary"] = self.weights.auxiliary * torch.stack(auxiliary).sum(dim=0)
        statistics = {name: value.detach() for reply in replies for name, value in reply.statistics.items()}
        return Terms(losses_B, statistics)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Say which epoch starts, from 0, of how many: drives deferral and ramps. Never called: as at the end.

        Raises:
            MethodError: not ``0 <= epoch < epochs``.
        """
        if not 0 <= epoch < epochs:
            raise MethodError(f"epoch is {epoch} of {epochs}; expected 0 to epochs - 1, since epochs count from 0")
        self._set_progress(Progress(int(epoch), int(epochs)))

    def _set_progress(self, progress: Progress) -> None:
        self.progress = progress
        for module in self.modules():
            if module is not self and hasattr(module, "begin_epoch"):
                module.begin_epoch(progress)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The method's own parameters, such as a projector; they join the optimiser and exist only in training."""
        return list(self.parameters())

    def prepare(self, batches: Iterable[tuple[Outputs, Tensor]]) -> None:
        """One pass over (teacher outputs, labels) of the training data, where `needs.class_means`; else nothing is read."""

    def get_extra_state(self) -> Tensor:
        epoch, epochs = self.progress.epoch, self.progress.epochs
        return torch.tensor([-1 if epoch is None else epoch, -1 if epochs is None else epochs])

    def set_extra_state(self, state: Tensor) -> None:
        epoch, epochs = (int(value) for value in state)
        self._set_progress(Progress() if epoch < 0 else Progress(epoch, epochs))

    def _check(self, student: Outputs, teacher: Outputs | None, target: Tensor, index: Tensor | None) -> None:
        logits_BC = _logits_of(student, "student")
        batch_size, num_classes = logits_BC.shape
        if num_classes != len(self.class_counts):
            raise MethodError(f"student logits have {num_classes} classes; class_counts has {len(self.class_counts)}")
        if batch_size == 0:
            raise MethodError("the batch is empty; expected at least one sample")
        check_target(target, logits_BC)
        self._check_features(student, "student", self.needs.student_features)
        if self.needs.teacher:
            if teacher is None:
                raise MethodError(f"{self.name} needs a teacher: give its Outputs, not None")
            check_same_shape(_logits_of(teacher, "teacher"), logits_BC, "teacher logits", "student logits")
            self._check_features(teacher, "teacher", self.needs.teacher_features)
        if self.needs.index:
            if index is None:
                raise MethodError(f"{self.name} keeps a memory of every sample: give their indices, index=")
            if index.shape != target.shape or index.dtype != torch.int64:
                raise MethodError(f"index is {index.dtype} of shape {tuple(index.shape)}; expected int64 of shape (B,)")

    def _check_features(self, outputs: Outputs, whose: str, needed: bool) -> None:
        if not needed:
            return
        features_BD = outputs.features
        if features_BD is None:
            raise MethodError(f"{self.name} reads the {whose}'s features: give Outputs(logits=..., features=...)")
        if features_BD.ndim != 2 or len(features_BD) != len(outputs.logits):
            raise MethodError(
                f"{whose} features have shape {tuple(features_BD.shape)}; expected ({len(outputs.logits)}, D)"
            )


def _logits_of(outputs: Outputs, whose: str) -> Tensor:
    if not isinstance(outputs, Outputs):
        raise MethodError(
            f"the {whose} is given as {type(outputs).__name__}; expected Outputs(logits=..., features=...)"
        )
    check_logits(outputs.logits, f"{whose} logits")
    return outputs.logits


def _detached(outputs: Outputs, dtype: torch.dtype) -> Outputs:
    features = outputs.features
    return Outputs(outputs.logits.detach().to(dtype), None if features is None else features.detach())
