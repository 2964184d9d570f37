"""A `transformers.Trainer` that distills."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from distail import files
from distail.errors import CheckpointError, DataError, MethodError, Problems, unknown_name
from distail.integrations.answers import StoredAnswers
from distail.integrations.data import (
    INDEX,
    LABELS,
    TEACHER_LOGITS,
    IndexedDataset,
    KeptColumns,
    count_labels,
    in_order,
)
from distail.integrations.distillation import (
    Distillation,
    MethodLike,
    accepted,
    accepted_names,
    plain_loss,
    reported_metrics,
)
from distail.methods.method import Method
from distail.outputs import logits_in
from distail.torch_utils import kept_random_state

try:
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint
except ImportError as error:
    raise ImportError(f"{error}; expected transformers: pip install 'distail[transformers]'") from error

METHOD_FILE = "distail_method.safetensors"
"""In the folder of a checkpoint: the method's state, and what it remembers of every sample."""
_REFUSED = {
    "model_init": "an existing network: model=",
    "compute_loss_func": "none: the method is the loss",
    "preprocess_logits_for_metrics": "none: metrics by class group need the logits",
}


class DistillationTrainer(Trainer):
    """A `Trainer` whose loss is a distillation method; counts the classes, runs the teacher, reports class groups.

    In addition to the logs of `Trainer`, it logs the method's terms (`supervised`, `distillation`, ...) and statistics,
    as means since the last log, and at each evaluation, in percent, `eval_top1`, `eval_balanced_accuracy`, `eval_head`,
    `eval_medium` and `eval_tail` (thirds of the classes by training samples; a group without classes is omitted).
    `eval_loss` is plain cross-entropy for every method; the teacher is not used in evaluation.

    Labels that are rows (C,) of 0.0 and 1.0 are multi-label: `eval_mean_average_precision` replaces both accuracies,
    the groups are means of average precision, and `eval_loss` is binary cross-entropy, summed over classes.

    The parameters of the method are in the optimizer, but not in gradient clipping. Its state is a separate file in
    each checkpoint, so that `save_model` writes the student in the format of `from_pretrained`.

    Args:
        model: the student; takes the columns of a batch as keyword arguments and returns logits (B, C), or an output
            with `.logits`.
        method: a name of `distail.list_methods`, a mapping of slots, or a `distail.Method`.
        teacher: a network, called with the columns named in its `forward`; in evaluation mode, never trained.
        teacher_logits: instead of `teacher`, its logits (N, C) in the order of the training set: a tensor, an array,
            a memory-mapped array, `StoredAnswers` of a file, or the name of a column.
        class_counts: training samples per class; by default counted in `train_dataset` with `count_classes`.
        samples: for multi-label data with `class_counts`: the number of training samples.
        compute_metrics: further metrics, as in `Trainer`.
        options: further arguments of `Trainer`.

    Raises:
        MethodError: the method does not fit, or an option is not supported; all are listed.
        DataError: labels or stored logits cannot be used.
    """

    loss_is_scaled_for_ga = False  # a mean of each batch: Trainer divides it where gradients accumulate
    label_names: list[str]
    train_dataset: Any
    data_collator: Any
    _signature_columns: list[str] | None

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        method: MethodLike,
        teacher: nn.Module | None = None,
        teacher_logits: Any = None,
        class_counts: Sequence[int] | Tensor | None = None,
        samples: int | None = None,
        compute_metrics: Callable[[Any], dict[str, float]] | None = None,
        **options: Any,
    ) -> None:
        _check_options(args, options)
        self._other_metrics = compute_metrics
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_metrics=self._metrics,
            **options,
        )
        self.model_accepts_loss_kwargs = False  # the same for releases that do not know loss_is_scaled_for_ga
        self.label_names = self.label_names or [LABELS[0]]
        if class_counts is None and not isinstance(method, Method):
            class_counts, counted = self._counted(train_dataset)
            if samples not in (None, counted):
                found = "single-label targets" if counted is None else f"{counted} samples"
                raise MethodError(f"samples is {samples}, and train_dataset has {found}; leave it out")
            samples = counted
        with kept_random_state():
            torch.manual_seed(self.args.seed)
            stored = teacher_logits is not None
            self.distillation = Distillation(method, model, teacher, class_counts, samples=samples, stored=stored)
        self.method = self.distillation.method.to(self.args.device)
        if self.distillation.teacher is not None:
            self.distillation.teacher.to(self.args.device)
        if self.accelerator.num_processes > 1:
            self.method.reduce = partial(self.accelerator.reduce, reduction="sum")
        self._check_loop()
        self._teacher_column = teacher_logits if isinstance(teacher_logits, str) else TEACHER_LOGITS
        self._carry(teacher_logits)
        self.add_callback(_TellMethod(self.method))
        self._sums: dict[str, Tensor] = {}
        self._batches = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The method's loss of a training batch; of any other, cross-entropy."""
        given = dict(inputs)
        labels, index_B, teacher_logits_BC = (
            given.pop(name, None) for name in (self.label_names[0], INDEX, self._teacher_column)
        )
        if labels is None:
            raise DataError(
                f"a batch has no {self.label_names[0]}, only {', '.join(given)}; expected int64 labels (B,)"
            )
        if not model.training:
            logits_BC: Any = logits_in(model(**accepted(self.distillation.student.model, given)))
            loss = plain_loss(logits_BC, labels)
            return (loss, {"logits": logits_BC}) if return_outputs else loss
        with self.accelerator.autocast():
            terms = self.distillation.terms(
                given, labels, index_B=index_B, teacher_logits_BC=teacher_logits_BC, network=model
            )
        self._batches += 1
        for name, value in {**terms, **terms.statistics}.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        return (terms.total, {}) if return_outputs else terms.total

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """As `Trainer`'s; what processes share are the gradients of the method's own parameters, too."""
        loss: Tensor = super().training_step(*args, **options)
        if self.accelerator.num_processes > 1 and self.accelerator.sync_gradients:
            for parameter in self.method.trainable_parameters():
                if parameter.grad is not None:
                    parameter.grad.copy_(self.accelerator.reduce(parameter.grad, reduction="mean"))
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As `Trainer`'s, with the method's own parameters.

        Raises:
            MethodError: an optimizer was given that does not hold them.
        """
        given = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*([] if model is None else [model]))
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [parameter for parameter in self.method.trainable_parameters() if id(parameter) not in held]
        if missing and given:
            raise MethodError(
                f"the optimizer does not contain the parameters of {self.method.name}; expected "
                "method=distail.create_method(...) with its trainable_parameters() in the optimizer, or no optimizer"
            )
        if missing:
            optimizer.add_param_group({"params": missing, "weight_decay": self.args.weight_decay})
        return optimizer

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **options: Any) -> Any:
        """As `Trainer`'s: the method goes on from its state in the checkpoint.

        Raises:
            CheckpointError: the checkpoint has no state of this method.
        """
        last = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        self._sums, self._batches = {}, 0
        if last:
            self._load_method(Path(last))
        if not self.method.prepared:
            loader = self.get_train_dataloader()
            with kept_random_state():
                batches = in_order(loader, self.accelerator.process_index, self.accelerator.num_processes)
                self.distillation.prepare(map(self._inputs_and_labels, batches))
        return super().train(last or resume_from_checkpoint, *args, **options)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `Trainer`'s; a checkpoint has the method's state beside the student."""
        if _internal_call and output_dir is not None and not self.args.save_only_model:
            memory = self.method.memory_state()  # every process takes part
            if self.args.should_save:
                state = {f"method.{name}": value for name, value in self.method.state_dict().items()}
                tensors = state | {f"memory.{name}": value for name, value in memory.items()}
                files.write_tensors(Path(output_dir) / METHOD_FILE, tensors, {"method": json.dumps(self.method.name)})
        super().save_model(output_dir, _internal_call=_internal_call)

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """As `Trainer`'s, with the method's terms beside a training loss."""
        if "loss" in logs and self._batches:
            means = torch.stack([value.float() for value in self._sums.values()]) / self._batches
            means = self.accelerator.reduce(means, reduction="mean")
            logs = {**logs, **dict(zip(self._sums, means.tolist(), strict=True))}
            self._sums, self._batches = {}, 0
        super().log(logs, *args, **options)

    def _counted(self, train_dataset: Any) -> tuple[tuple[int, ...], int | None]:
        if train_dataset is None:
            raise DataError("there is no train_dataset to count the classes; expected one, or class_counts=")
        classes = getattr(getattr(self.model, "config", None), "num_labels", None)
        return count_labels(train_dataset, classes, [*self.label_names, *LABELS])

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """As `Trainer`'s; without labels, which it calls the student with, the teacher's columns are left out."""
        if self.label_names[0] not in inputs:
            inputs = dict(accepted(self.distillation.student.model, inputs))
        return super().prediction_step(model, inputs, *args, **options)

    def _carry(self, teacher_logits: Any) -> None:
        """Have batches carry indices and stored answers, past the removal of columns and whatever collates."""
        by_index = self.method.needs.index or not (teacher_logits is None or isinstance(teacher_logits, str))
        self._carried = [INDEX] * by_index + [self._teacher_column] * (teacher_logits is not None)
        self.data_collator = KeptColumns(self.data_collator, self._carried)
        rows = None if isinstance(teacher_logits, str) else teacher_logits
        if self.train_dataset is None or (teacher_logits is None and not self.method.needs.index):
            return
        if self.method.needs.index or rows is not None:
            self.train_dataset = IndexedDataset(self.train_dataset, rows)
        if teacher_logits is None:
            return
        if isinstance(rows, StoredAnswers) and rows.of_one_class and self.method.setup.samples is not None:
            raise DataError(
                "teacher_logits contains single-label probabilities, but the data are multi-label; expected a "
                "file of logits, the log odds of each class"
            )
        first, classes = self.train_dataset[0], len(self.distillation.class_counts)
        if self._teacher_column not in first:
            raise DataError(unknown_name("column", self._teacher_column, first))
        if len(first[self._teacher_column]) != classes:
            raise DataError(
                f"teacher_logits has {len(first[self._teacher_column])} numbers per sample; expected one for each of "
                f"{classes} classes"
            )

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            teacher = self.distillation.teacher
            heard = [] if teacher is None else list(accepted_names(teacher.model))
            self._signature_columns = [*(self._signature_columns or []), *self._carried, *heard]

    def _inputs_and_labels(self, batch: dict[str, Any]) -> tuple[Mapping[str, Any], Tensor]:
        given = dict(self._prepare_inputs(batch))
        labels_B = given.pop(self.label_names[0])
        return given, labels_B

    def _metrics(self, predicted: Any) -> dict[str, float]:
        logits = predicted.predictions
        logits_NC = torch.as_tensor(logits[0] if isinstance(logits, tuple) else logits)
        found = reported_metrics(logits_NC, torch.as_tensor(predicted.label_ids), self.distillation.class_counts)
        return found if self._other_metrics is None else {**found, **self._other_metrics(predicted)}

    def _load_method(self, folder: Path) -> None:
        path = folder / METHOD_FILE
        try:
            tensors, _ = files.read_tensors(path)
            self.method.load_state_dict(_without("method.", tensors))
        except FileNotFoundError:
            raise CheckpointError(
                f"{folder} holds no {METHOD_FILE}; expected a checkpoint of this trainer, without save_only_model"
            ) from None
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not match {self.method.name}, or is damaged: {error}") from None
        self.method.load_memory_state(_without("memory.", tensors))

    def _check_loop(self) -> None:
        needs = self.method.needs
        whole = not (needs.student_features or self.method.trainable_parameters())
        if not whole and (self.is_fsdp_enabled or self.is_deepspeed_enabled or self.args.n_gpu > 1):
            raise MethodError(
                f"{self.method.name} reads features or has parameters of its own, which this trainer cannot spread "
                "over devices by FSDP, DeepSpeed or DataParallel; expected one process per device, as torchrun and "
                "accelerate launch start them"
            )


class _TellMethod(TrainerCallback):
    """Tells a method where training is; `Trainer` forgets the gradients of the student's parameters only."""

    def __init__(self, method: Any) -> None:
        self._method, self._part = method, -1

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.num_train_epochs < sys.maxsize:
            self._method.begin_epoch(int(state.epoch or 0), state.num_train_epochs)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._method.zero_grad()
        # Of data without a length nobody knows the epochs: a hundredth of the steps counts as one.
        part = state.global_step * 100 // state.max_steps
        if state.num_train_epochs == sys.maxsize and part != self._part:
            self._part = part
            self._method.begin_epoch(part, 100)


def _check_options(args: TrainingArguments | None, options: Mapping[str, Any]) -> None:
    problems = Problems()
    for name, expected in _REFUSED.items():
        if options.get(name) is not None:
            problems.add(f"{name} is given; expected {expected}")
    if args is not None and args.label_smoothing_factor:
        problems.add(f"label_smoothing_factor is {args.label_smoothing_factor}; expected 0: the method is the loss")
    if args is not None and args.batch_eval_metrics:
        problems.add(
            "batch_eval_metrics is set; expected False: metrics by class group are computed over the whole set"
        )
    problems.stop("DistillationTrainer", MethodError)


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
