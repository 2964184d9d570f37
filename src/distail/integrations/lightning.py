"""A `LightningModule` that distills, and a callback that reports by groups of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from distail.errors import DataError, MethodError
from distail.integrations.data import INDEX, LABELS, TEACHER_LOGITS, in_order
from distail.integrations.distillation import Distillation, Inputs, MethodLike, accepted, plain_loss, reported_metrics
from distail.methods.method import Method
from distail.outputs import logits_in
from distail.torch_utils import kept_random_state

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from torchmetrics.utilities.distributed import gather_all_tensors
except ImportError as error:
    raise ImportError(f"{error}; expected lightning: pip install 'distail[lightning]'") from error

_MEMORY, _TEACHER = "distail_memory", "teacher."


class DistillationModule(LightningModule):
    """A `LightningModule` whose training step is a method's.

    Batches are tuples ``(inputs, labels)``, ``(inputs, labels, index)`` or ``(inputs, labels, index, teacher_logits)``,
    whose inputs are images or a mapping, or mappings with `labels`, `index` and `teacher_logits` beside the inputs.
    `distail.integrations.data.IndexedDataset` adds what is after the labels.

    Logged are `loss` and the method's terms and statistics; `val_loss` and `test_loss` are plain cross-entropy. The
    method's state is in Lightning's checkpoints, the frozen teacher is not. With `samples` a sample has several
    classes: labels are (B, C), bool or 0.0 and 1.0, and those losses binary cross-entropy, the sum over classes.

    Args:
        student: gives logits (B, C), with whatever else; of a mapping it is called with what its forward pass names.
        method: a name of `distail.list_methods`, a mapping of slots, or a `distail.Method`.
        class_counts: training samples of each class, (C,), as `count_classes` finds them; not with a `Method`.
        samples: where a sample has several classes, how many training samples there are; not with a `Method`.
        teacher: a network, frozen here; None where there is none, or where batches carry `teacher_logits`.
        optimizer: makes it from the parameters of student and method; for schedules override `configure_optimizers`.

    Raises:
        MethodError: the method does not fit; at the first batch, what it needs is not there.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        method: MethodLike,
        class_counts: Sequence[int] | Tensor | None = None,
        samples: int | None = None,
        teacher: nn.Module | None = None,
        optimizer: Callable[[list[nn.Parameter]], Any] = torch.optim.AdamW,
    ) -> None:
        super().__init__()
        self.distillation = Distillation(method, student, teacher, class_counts, samples=samples)
        self.student, self.method = student, self.distillation.method
        self.teacher = None if self.distillation.teacher is None else self.distillation.teacher.model
        if self.teacher is not None:
            self.teacher.requires_grad_(False)
        self._make_optimizer = optimizer
        # DDP would overwrite every process's memory of its own samples by the first one's, at every step.
        buffers = [f"method.{name}" for name, _ in self.method.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = buffers

    def forward(self, inputs: Inputs) -> Tensor:
        """The student's logits (B, C)."""
        called = self.student(**accepted(self.student, inputs)) if isinstance(inputs, Mapping) else self.student(inputs)
        return cast(Tensor, logits_in(called))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels_B, index_B, teacher_logits_BC = _parts(batch)
        terms = self.distillation.terms(inputs, labels_B, index_B=index_B, teacher_logits_BC=teacher_logits_BC)
        told = {name: value.detach() for name, value in {"loss": terms.total, **terms, **terms.statistics}.items()}
        self.log_dict(told, batch_size=len(labels_B))
        return terms.total

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self._evaluation_step(batch, "val_loss")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self._evaluation_step(batch, "test_loss")

    def configure_optimizers(self) -> Any:
        """The optimizer over what is trained: the student, and the method's own parameters."""
        parameters = [*self.student.parameters(), *self.method.trainable_parameters()]
        return self._make_optimizer([parameter for parameter in parameters if parameter.requires_grad])

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            self.method.reduce = self._sum

    def on_train_start(self) -> None:
        if not self.method.prepared:  # after a checkpoint was read
            with kept_random_state():
                self.distillation.prepare(self._training_data())

    def on_train_epoch_start(self) -> None:
        self.method.begin_epoch(self.current_epoch, _epochs(self.trainer))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if not name.startswith(_TEACHER)}
        checkpoint[_MEMORY] = self.method.memory_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = {name: value for name, value in self.state_dict().items() if name.startswith(_TEACHER)}
        checkpoint["state_dict"] = {**own, **checkpoint["state_dict"]}
        self.method.load_memory_state(checkpoint.get(_MEMORY, {}))

    def _evaluation_step(self, batch: Any, name: str) -> dict[str, Tensor]:
        inputs, labels_B, *_ = _parts(batch)
        logits_BC = self(inputs)
        self.log(name, plain_loss(logits_BC, labels_B), batch_size=len(labels_B), sync_dist=True)
        return {"logits": logits_BC, "labels": labels_B}

    def _training_data(self) -> Iterator[tuple[Inputs, Tensor]]:
        loader = self.trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            raise MethodError(
                f"{self.method.name} must read the training data once; expected a DataLoader, not "
                f"{type(loader).__name__}, or a method that has been prepared with prepare()"
            )
        for batch in in_order(loader, self.trainer.global_rank, self.trainer.world_size):
            inputs, labels_B, *_ = _parts(self.transfer_batch_to_device(batch, self.device, 0))
            yield inputs, labels_B

    def _sum(self, statistic: Tensor) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(statistic.clone(), reduce_op="sum")
        return total


class GroupMetrics(Callback):
    """Logs balanced accuracy and accuracy of head, medium and tail classes at each validation and test.

    In percent: `val_top1`, `val_balanced_accuracy`, `val_head`, `val_medium` and `val_tail` (thirds of the classes by
    their training samples; a group without classes is left out), and the same with `test_`. For a second data set
    `_1` follows. Of labels (B, C), where a sample has several classes, `val_mean_average_precision` stands in place of
    both accuracies, and the groups are means of average precision.

    It reads what `validation_step` and `test_step` return: a mapping with `logits` (B, C) and `labels`, as those
    of `DistillationModule` are.

    Args:
        class_counts: training samples of each class, (C,); by default those of the module's `method`.
    """

    def __init__(self, class_counts: Sequence[int] | Tensor | None = None) -> None:
        self._class_counts = class_counts
        self._seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = {}

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._keep(outputs, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:  # a few batches, of a network that has learned nothing
            self._log(pl_module, "val_")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(pl_module, "test_")

    def _keep(self, outputs: Any, dataloader: int) -> None:
        if not isinstance(outputs, Mapping) or not {"logits", "labels"} <= outputs.keys():
            raise DataError("GroupMetrics reads what a step returns; expected a mapping with logits and labels")
        seen = (outputs["logits"].detach().float(), outputs["labels"])
        self._seen.setdefault(dataloader, []).append(seen)

    def _log(self, module: LightningModule, prefix: str) -> None:
        counts = self._class_counts
        if counts is None:
            method = getattr(module, "method", None)
            if not isinstance(method, Method):
                raise MethodError(f"{type(module).__name__} has no method; expected GroupMetrics(class_counts)")
            counts = method.setup.class_counts
        for dataloader, batches in self._seen.items():
            logits_NC, labels_N = (_gathered(torch.cat(parts)).cpu() for parts in zip(*batches, strict=True))
            found = reported_metrics(logits_NC, labels_N, counts, prefix)
            later = f"_{dataloader}" if dataloader else ""
            told = {f"{name}{later}": value for name, value in found.items()}
            module.log_dict(told, sync_dist=True, add_dataloader_idx=False)


def _gathered(values: Tensor) -> Tensor:
    """The rows of all processes, which need not have as many."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.cat(gather_all_tensors(values)) if several else values


def _parts(batch: Any) -> tuple[Inputs, Tensor, Tensor | None, Tensor | None]:
    """Inputs, labels and, where they are there, sample indices and the teacher's logits."""
    if isinstance(batch, Mapping):
        given = dict(batch)
        index_B, teacher_logits_BC = given.pop(INDEX, None), given.pop(TEACHER_LOGITS, None)
        label = next((name for name in LABELS if name in given), None)
        if label is None:
            raise DataError(f"a batch has no labels, only {', '.join(given)}; expected {' or '.join(LABELS)}")
        return given, given.pop(label), index_B, teacher_logits_BC
    if not isinstance(batch, Sequence) or not 2 <= len(batch) <= 4:
        raise DataError(f"a batch is {type(batch).__name__}; expected (inputs, labels), or a mapping with labels")
    inputs, labels_B, index_B, teacher_logits_BC = (*batch, None, None)[:4]
    return inputs, labels_B, index_B, teacher_logits_BC


def _epochs(trainer: Trainer) -> int:
    """How many epochs this training has, by whichever limit comes first.

    Raises:
        MethodError: there is none.
    """
    limits = [trainer.max_epochs] if trainer.max_epochs is not None and trainer.max_epochs > 0 else []
    if trainer.max_steps > 0 and math.isfinite(trainer.num_training_batches):
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps))
    if not limits and trainer.max_steps > 0:
        raise MethodError(
            "the training data have no length, so max_steps says nothing of epochs, which the ramps of the method "
            "depend on; expected max_epochs as well"
        )
    if not limits:
        raise MethodError(
            "training has no end; expected max_epochs or max_steps, which the ramps of the method depend on"
        )
    return min(limits)
