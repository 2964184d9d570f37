"""A method: five slots, one forward pass, one place where losses per sample become terms.

Shapes: B batch, C classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distail.errors import MethodError
from distail.functional.checks import at_least_float32, check_whole
from distail.methods.checks import check_batch, check_features, check_teacher, checked_output, logits_of
from distail.methods.context import (
    BatchContext,
    Progress,
    Reduce,
    Requirements,
    SlotOutput,
    SlotSetup,
    Terms,
    TermWeights,
    identity_reduce,
)
from distail.methods.own_entries import is_own
from distail.methods.self_distillation import SelfDistillation
from distail.outputs import Outputs

__all__ = ["Method", "Slots", "Terms", "identity_reduce"]


@dataclass(frozen=True)
class Slots:
    """The slots, filled: what a teacher's message passes on its way to the student.

    Attributes:
        previous_epoch: the student's own memory, in place of a teacher.
    """

    supervised: nn.Module
    targets: tuple[nn.Module, ...] = ()
    divergence: nn.Module | None = None
    weights: nn.Module | None = None
    representation: nn.Module | None = None
    previous_epoch: SelfDistillation | None = None


class Method(nn.Module):
    """A distillation method, composed of slot entries; `create_method` makes one.

    `state_dict` resumes exactly, progress included, and stays small; what a method remembers of every sample is in
    `memory_state`. Constants stay float64 under `.half()` or `.to(dtype)`.

    Attributes:
        name: the preset's name, or "composition".
        needs: what a run must supply.
        reduce: sums a tensor over the global batch; a distributed loop replaces the identity by its all-reduce.
        teacher_supervised: the supervised entry that the method's paper trains its teacher with.
    """

    def __init__(
        self,
        name: str,
        setup: SlotSetup,
        weights: TermWeights,
        slots: Slots,
        teacher_supervised: str | Mapping[str, Any] = "ce",
    ) -> None:
        super().__init__()
        if slots.previous_epoch is not None and getattr(slots.weights, "replaces_labels", False):
            raise MethodError(
                "kd_head_ce: false trains the student's own head only on its teacher, but teacher: previous_epoch is "
                "that head itself: it would learn from no labels, and from nothing in the first epoch; expected "
                "kd_head_ce: true, or another teacher"
            )
        self.name = name
        self.setup = setup
        self.weights = weights
        self.teacher_supervised = teacher_supervised
        self.supervised = slots.supervised
        self.targets = nn.ModuleList(slots.targets)
        self.divergence = slots.divergence
        self.sample_weights = slots.weights
        self.representation = slots.representation
        self.previous_epoch = slots.previous_epoch
        self.reduce: Reduce = identity_reduce
        self.progress = Progress()
        self.needs = self._needs()

    def forward(
        self, student: Outputs, teacher: Outputs | None, target: Tensor, *, index: Tensor | None = None
    ) -> Terms:
        """The terms of one batch.

        Args:
            student: `Outputs`: logits (B, C), and features (B, D) where `needs.student_features`. Half and bfloat16 are
                promoted to float32, also inside autocast.
            teacher: the same of the teacher, never written to and never given a gradient; None where there is none.
            target: (B,) int64 labels; (B, C) bool for multi-label data.
            index: (B,) int64 sample indices, where `needs.index`.

        Raises:
            MethodError: something that `needs` names is missing, or shapes or dtypes do not fit, before any arithmetic.
        """
        self._check(student, teacher, target, index)
        with torch.autocast(student.logits.device.type, enabled=False):
            return self._terms(student, teacher, target, index)

    def _terms(self, student: Outputs, teacher: Outputs | None, target: Tensor, index: Tensor | None) -> Terms:
        logits_BC = at_least_float32(student.logits)
        dtype = logits_BC.dtype
        share_B: Tensor | None = None
        if self.previous_epoch is not None and index is not None:
            remembered_BC, share_B = self.previous_epoch.recall(index, dtype)
            teacher = Outputs(remembered_BC)
        elif not self.needs.teacher:
            teacher = None
        context = BatchContext(
            student=Outputs(logits_BC, student.features),
            teacher=None if teacher is None else _detached(teacher, dtype),
            target=target,
            index=index,
            temperature=self.setup.temperature,
            progress=self.progress,
            reduce=self.reduce,
        )
        outputs: list[SlotOutput] = []
        losses_B = self._losses(context, outputs)
        if share_B is not None:
            losses_B["supervised"] = (1.0 - share_B) * losses_B["supervised"]
            losses_B["distillation"] = share_B * losses_B["distillation"]
        if self.previous_epoch is not None and index is not None and self.training:
            self.previous_epoch.remember(index, context.student_log_probabilities())
        weighted_B = {name: getattr(self.weights, name) * values_B.to(dtype) for name, values_B in losses_B.items()}
        statistics: dict[str, Tensor] = {}
        for output in outputs:
            statistics |= {name: value.detach() for name, value in output.statistics.items()}
        return Terms(weighted_B, statistics)

    def _losses(self, context: BatchContext, outputs: list[SlotOutput]) -> dict[str, Tensor]:
        """The terms, one loss per sample, before their weights; what the entries return is added to `outputs`."""

        def call(entry: nn.Module, seen: BatchContext, *logits_BC: Tensor, shape: torch.Size) -> SlotOutput:
            outputs.append(checked_output(entry(seen, *logits_BC), entry, shape))
            return outputs[-1]

        each_sample = context.target.shape[:1]
        context.supervised_losses = call(self.supervised, context, shape=each_sample).values
        losses_B = {"supervised": context.supervised_losses}
        if self.divergence is not None:
            compared, repaired_BC = context, context.given_teacher.logits
            for repair in self.targets:
                output = call(repair, compared, _given(repair, repaired_BC), shape=repaired_BC.shape)
                repaired_BC = output.values
                if output.student is not None:
                    compared = compared.with_student_logits(output.student)
            context.repaired_logits = repaired_BC
            losses_B["distillation"] = call(
                self.divergence, compared, _given(self.divergence, repaired_BC), shape=each_sample
            ).values
        if self.sample_weights is not None:
            losses_B["distillation"] = (
                call(self.sample_weights, context, shape=each_sample).values.detach() * losses_B["distillation"]
            )
            if getattr(self.sample_weights, "replaces_labels", False):
                losses_B["supervised"] = torch.zeros_like(losses_B["supervised"])
        if self.representation is not None:
            losses_B["representation"] = call(self.representation, context, shape=each_sample).values
        auxiliary = [values_B for output in outputs for values_B in output.auxiliary.values()]
        if auxiliary:
            losses_B["auxiliary"] = torch.stack(auxiliary).sum(dim=0)
        return losses_B

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Start an epoch (from 0): controls deferral, ramps and memory. If never called: as at the end of training.

        Every process calls it in distributed training.

        Raises:
            MethodError: not ``0 <= epoch < epochs``.
        """
        epoch, epochs = check_whole("epoch", epoch, least=0), check_whole("epochs", epochs, least=1)
        if epoch >= epochs:
            raise MethodError(
                f"epoch is {epoch} of {epochs}; expected 0 to {epochs - 1}, since epochs are numbered from 0"
            )
        if self.previous_epoch is not None:
            self.previous_epoch.advance(epoch, self.reduce)
        self._set_progress(Progress(epoch, epochs))

    def _set_progress(self, progress: Progress) -> None:
        self.progress = progress
        for entry in self._entries():
            begin_epoch = getattr(entry, "begin_epoch", None)
            if begin_epoch is not None:
                begin_epoch(progress)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The method's own parameters, such as a projector; they join the optimizer and exist only in training."""
        return list(self.parameters())

    def host_state(self) -> list[object]:
        """The flags and numbers, not tensors, that its entries decide by: a recorded step (a CUDA graph) holds as long
        as they are equal. Entries of one's own may decide by the progress, which then belongs to them.
        """
        entries = list(self._entries())
        plain = [value for entry in entries for value in vars(entry).values() if isinstance(value, bool | int | float)]
        return [*plain, self.progress if any(map(is_own, entries)) else None]

    @property
    def prepared(self) -> bool:
        """Whether `prepare` has been done or is not needed."""
        return bool(getattr(self.representation, "prepared", True))

    def prepare(self, batches: Iterable[tuple[Outputs, Tensor]]) -> None:
        """One pass over (teacher `Outputs`, labels) of the training data if `needs.class_means`; otherwise no effect.

        The result is in the `state_dict`, so a resumed method is prepared. In distributed training each process
        passes its own share of the data.

        Raises:
            MethodError: features are missing or have the wrong width, or a class has no sample.
        """
        if self.needs.class_means:
            entry: Any = self.representation
            entry.prepare(batches, self.reduce)

    def memory_state(self) -> dict[str, Tensor]:
        """The method's stored predictions per sample, separate from `state_dict`; empty unless `needs.memory`.

        With `running_epoch` it resumes an epoch exactly. The tensors are copies on the CPU. In distributed training
        every process must call it; all get the same.
        """
        return {} if self.previous_epoch is None else self.previous_epoch.memory.state(self.reduce)

    def load_memory_state(self, state: Mapping[str, Tensor]) -> None:
        """Load a `memory_state`, the same in every process, before or after `load_state_dict`.

        Raises:
            CheckpointError: entries are missing or have other shapes.
        """
        if self.previous_epoch is not None:
            self.previous_epoch.memory.load(state)

    def get_extra_state(self) -> Tensor:
        epoch, epochs = self.progress.epoch, self.progress.epochs
        return torch.tensor([-1 if epoch is None else epoch, -1 if epochs is None else epochs])

    def set_extra_state(self, state: Tensor) -> None:
        epoch, epochs = (int(value) for value in state)
        self._set_progress(Progress() if epoch < 0 else Progress(epoch, epochs))

    def extra_repr(self) -> str:
        return f"{self.name}, classes={self.setup.num_classes}, temperature={self.setup.temperature}, {self.weights}"

    def _entries(self) -> Iterator[nn.Module]:
        return (module for module in self.modules() if module is not self)

    def _needs(self) -> Requirements:
        needs = Requirements(teacher=self.divergence is not None and self.previous_epoch is None)
        for entry in self._entries():
            needs |= getattr(entry, "needs", Requirements())
        return needs | Requirements(teacher=needs.teacher_features)

    def _check(self, student: Outputs, teacher: Outputs | None, target: Tensor, index: Tensor | None) -> None:
        setup, needs = self.setup, self.needs
        logits_BC = logits_of(student, "student")
        check_batch(logits_BC, target, setup.num_classes, multi_label=setup.multi_label)
        if needs.student_features:
            check_features(student, "student", self.name, setup.student_dim)
        if needs.teacher:
            given = check_teacher(teacher, logits_BC, self.name)
            if needs.teacher_features:
                check_features(given, "teacher", self.name, setup.teacher_dim)
        if not self.prepared:
            raise MethodError(
                f"{self.name} assigns priors by the teacher's class means: call method.prepare(batches) once, with "
                "(teacher Outputs, labels) of the training data, or load a prepared state_dict, or choose "
                "assignment='identity'"
            )
        if self.previous_epoch is not None:
            self.previous_epoch.check(index, target, self.name)


def _given(entry: nn.Module, logits_BC: Tensor) -> Tensor:
    """What an entry gets of the teacher: one of a user's own may write to it, and it is the caller's."""
    return logits_BC.clone() if is_own(entry) else logits_BC


def _detached(outputs: Outputs, dtype: torch.dtype) -> Outputs:
    features = outputs.features
    return Outputs(outputs.logits.detach().to(dtype), None if features is None else features.detach())
