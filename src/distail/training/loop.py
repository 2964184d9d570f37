"""The one loop that trains teachers and students. It knows networks, batches and a method, but no method by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distail.data.batches import Batch, batch_places, training_share, usual_sizes
from distail.data.seeding import stream_key
from distail.errors import TrainingError, some_of
from distail.evaluation.headline import headline
from distail.evaluation.metrics import MetricValues
from distail.evaluation.run_files import EpochRow
from distail.outputs import Outputs
from distail.torch_utils import kept_random_state
from distail.training.averaging import AveragedWeights
from distail.training.checkpoint import CheckpointFolder
from distail.training.cuda_graph import Computed, RecordedPass
from distail.training.finite import NEVER, NonFiniteDetector, finite_flags, not_finite_error
from distail.training.freezing import Freezing
from distail.training.history import History
from distail.training.optim import build_optimizer, learning_rate_factor
from distail.training.parameter_groups import RATE
from distail.training.passes import images_a_pass, parts_of_batch, records
from distail.training.progress import Reporter
from distail.training.signals import Interrupted, StopRequest, stop_requests
from distail.training.stage import Fitted, Stage
from distail.training.stage_checkpoints import StageCheckpoints
from distail.training.state import Best, RunningSums, TrainingState, capture, restore
from distail.training.step import Step, TrainingStep, distributed_step, sync_batch_norm_statistics


def fit(
    stage: Stage, checkpoints: CheckpointFolder, history: History, reporter: Reporter, checkpoint_every: int
) -> Fitted:
    """Train `stage.student` in place, from its newest checkpoint if there is one, to the last epoch.

    With `training.ema_decay` it is left with the averaged weights.

    Raises:
        TrainingError: the loss, or the teacher, is not finite; the last good checkpoint is kept.
        Interrupted: a signal came; once training has begun, a checkpoint of the last finished step is written first.
    """
    trainer = _Trainer(stage, checkpoints, history, reporter, checkpoint_every)
    try:
        with stop_requests(patient=stage.runtime.processes.size > 1) as request, kept_random_state():
            trainer.run(request)
        if trainer.average is not None:
            trainer.average.apply()
    finally:
        trainer.freezing.lift()
        if trainer.recorded is not None:
            trainer.recorded.forget()
            trainer.optimizer.zero_grad(set_to_none=True)
        reporter.finish()
        stage.batches.close()
    return Fitted(trainer.state.seconds, trainer.state.history, trainer.state.best, trainer.average is not None)


class _Trainer:
    def __init__(
        self, stage: Stage, checkpoints: CheckpointFolder, history: History, reporter: Reporter, checkpoint_every: int
    ) -> None:
        self.stage, self.history, self.reporter = stage, history, reporter
        self.checkpoints = StageCheckpoints(
            checkpoints, stage.method, lambda remark: reporter.message(f"{stage.name}: {remark}")
        )
        self.checkpoint_every = checkpoint_every
        self.device = stage.runtime.device
        stage.method.reduce = stage.runtime.processes.sum
        self.processes = stage.runtime.processes
        mix, decay = stage.training.mix, stage.training.ema_decay
        self.step_module = TrainingStep(
            stage.student,
            stage.method,
            stage.runtime,
            images_a_pass(stage.training, stage.runtime.processes) if stage.compile else None,
            distillation_only=mix is not None and mix.labels == "distillation_only",
            weights=stage.batches.weights,
        )
        self.average = None if decay is None else AveragedWeights(stage.student.model, decay)
        self.step: Step = self.step_module
        self.awaits_all = False  # whether other processes wait for the gradient of every parameter
        # Apart: the gradients of a method's own layers must not decide where the student's are clipped.
        self.freezing = Freezing(stage.student, stage.classifiers, stage.frozen_epochs)
        self.parameters = [
            self.freezing.trained_until(stage.training.epochs),
            [parameter for parameter in stage.method.parameters() if parameter.requires_grad],
        ]
        self.optimizer = build_optimizer(stage.student.model, self.parameters, stage.training, stage.classifiers)
        self.state = TrainingState()
        self.epochs_before = 0
        if stage.earlier is not None:
            before = stage.earlier
            self.state = TrainingState(seconds=before.seconds, history=[*before.history], best=before.best)
            self.epochs_before = len(before.history)
        self.all_epochs = self.epochs_before + stage.training.epochs + stage.later_epochs
        self.sums = RunningSums()
        self.recorded: RecordedPass | None = None
        if records(stage):
            every = [each for trained in self.parameters for each in trained]
            sizes = usual_sizes(stage.batches.num_images, stage.training.batch_size)
            self.recorded = RecordedPass(self._compute, self.step_module, every, sizes, reporter.message)
        self.changed = False  # since the newest checkpoint
        self.finite = NonFiniteDetector(self.device)
        self.clock = time.perf_counter()

    def run(self, request: StopRequest) -> None:
        stage = self.stage
        self.clock = time.perf_counter()
        steps = stage.batches.steps_per_epoch
        with request.at_once():
            self.processes.broadcast_parameters(self.step_module)
            self._resume()
            self.processes.broadcast_from_main(lambda: self.history.rewind(stage.name, self.state.history))
            if self.state.step < steps * stage.training.epochs:
                if stage.fill is not None:
                    stage.fill(self.reporter)
                    self._count_time(of_an_epoch=False)
                self.freezing.begin(self.state.step // steps)
                self._distribute_step()
        self.reporter.start(stage.title, stage.training.epochs, steps, self.state.step)
        if len(self.state.history) - self.epochs_before < self.state.step // steps:  # stopped while it was validated
            self._end_epoch(request)
        while self.state.step < steps * stage.training.epochs:
            epoch, first_step = divmod(self.state.step, steps)
            if self.freezing.begin(epoch):
                self._distribute_step()
            stage.method.begin_epoch(self.epochs_before + epoch, self.all_epochs)
            if self.recorded is not None:
                self.recorded.hold_for((self.freezing.frozen, stage.method.host_state()))
            for batch in self._batches(epoch, first_step, request):
                self._train_step(batch)
                if self.state.step % steps == 0:
                    self._end_epoch(request)
                signal_number = self._agreed_signal(request)
                if signal_number or self.state.step % self.checkpoint_every == 0:
                    self._checkpoint()
                if signal_number:
                    raise Interrupted(signal_number, saved=True)
        self._checkpoint()
        if signal_number := self._agreed_signal(request):  # that came while the last checkpoint was written
            raise Interrupted(signal_number, saved=True)

    def _batches(self, epoch: int, first_step: int, request: StopRequest) -> Iterator[Batch]:
        try:
            yield from self.stage.batches.epoch(epoch, first_step)
        except TrainingError:
            # A signal to all processes of a job ends those that decode images while this one waits for them.
            if request.signal_number is None or self.processes.size > 1:
                raise
            self._checkpoint()
            raise Interrupted(request.signal_number, saved=self.state.step > 0) from None

    def _resume(self) -> None:
        stage = self.stage
        found, memory = self.processes.broadcast_from_main(lambda: self.checkpoints.newest(stage.identity))
        if found is None:
            if stage.prepare is not None:
                stage.prepare()
            return
        self.state = restore(found, stage.student.model, stage.method, self.optimizer, self.device, self.average)
        if not self.processes.is_main:  # what all had summed up is the main process's now
            self.state.sums = {name: torch.zeros_like(value) for name, value in self.state.sums.items()}
        stage.method.load_memory_state(memory)

    def _distribute_step(self) -> None:
        stage = self.stage
        if self.processes.size > 1:
            batch = next(stage.batches.epoch(0))
            teacher = stage.teacher(batch) if stage.teacher is not None else None
            self.step = distributed = distributed_step(self.step_module, batch, teacher)
            self.awaits_all = not distributed.find_unused_parameters

    def _train_step(self, batch: Batch) -> None:
        stage, state = self.stage, self.state
        # Networks with dropout draw from torch's generator: tie it to the step, so that a resumed run draws the same.
        # Each process has a stream of its own; the main process's is that of a process alone.
        own_stream = (self.processes.rank,) if self.processes.rank else ()
        torch.manual_seed(int(stream_key("step", stage.seed, state.step, *own_stream)) >> 1)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(state.step) * group[RATE]
        self.optimizer.zero_grad(set_to_none=True)
        parts = parts_of_batch(stage.training, self.processes, len(batch.labels), self._batch_size(state.step))
        for part in parts:
            with nullcontext() if part is parts[-1] else self._unsynced():
                self._backward(batch if len(parts) == 1 else batch.part(part), len(batch.labels))
        if self.awaits_all:
            self._check_all_reached()
        if stage.training.gradient_clip is not None:
            for trained in self.parameters:
                nn.utils.clip_grad_norm_(trained, stage.training.gradient_clip)
        self.optimizer.step()
        state.step += 1
        if self.average is not None:
            self.average.update(state.step)
        self.changed = True
        self.reporter.step()

    def _backward(self, batch: Batch, of: int) -> None:
        """Add the gradient of a batch, or of a part of one `of` so many images."""
        stage, step = self.stage, self.state.step
        teacher = stage.teacher(batch) if stage.teacher is not None else None
        size = self._batch_size(step)
        share = training_share(size, self.processes.rank, self.processes.size) * len(batch.labels) / of
        # The processes' gradients are averaged: each counts by its share, and together they are the whole batch's.
        weight = share * self.processes.size
        computed = self._compute(batch, teacher, weight) if self.recorded is None else self.recorded(batch, teacher)
        self.finite.update(step, computed.finite)
        self.sums.add(self.state.sums, computed.names, computed.values * (share * size))

    def _compute(self, batch: Batch, teacher: Outputs | None, weight: float = 1) -> Computed:
        """Forward and backward pass."""
        loss, terms = self.step(batch.inputs, batch.labels, batch.index, teacher, batch.mixed)
        torch.autograd.backward(loss if weight == 1 else loss * weight)
        values = {"loss": terms.total, **{f"terms/{name}": value for name, value in terms.items()}}
        values |= {f"statistics/{name}": value for name, value in terms.statistics.items()}
        reported = torch.stack([value.detach().float().to(loss.device).reshape(()) for value in values.values()])
        return Computed(finite_flags(loss, teacher), tuple(values), reported)

    def _unsynced(self) -> AbstractContextManager[None]:
        """Gradients stay with their process for now."""
        return self.step.no_sync() if isinstance(self.step, DistributedDataParallel) else nullcontext()

    def _check_all_reached(self) -> None:
        """Say at once what the other processes would wait for in vain."""
        trained = [(name, one) for name, one in self.step_module.named_parameters() if one.requires_grad]
        unused = [name.removeprefix("student.model.") for name, parameter in trained if parameter.grad is None]
        if unused:
            raise TrainingError(
                f"{self.stage.name}: in step {self.state.step + 1} {len(unused)} of {len(trained)} parameters got no "
                f"gradient ({some_of(unused)}): the network leaves out layers at random (LayerDrop), more rarely than "
                "could be seen before training. Several processes need every layer in every step: run it in one "
                "process, or without dropping layers"
            )

    def _learning_rate(self, step: int) -> float:
        training = self.stage.training
        factor = learning_rate_factor(training.schedule, step, self.stage.batches.steps_per_epoch, training.epochs)
        return training.learning_rate * factor

    def _batch_size(self, step: int) -> int:
        """Images in the batch of all processes."""
        batches, size = self.stage.batches, self.stage.training.batch_size
        places = batch_places(step % batches.steps_per_epoch, batches.num_images, size)
        return int(places.stop - places.start)

    def _agreed_signal(self, request: StopRequest) -> int:
        """The signal that any process has had, or 0; on a CPU also whether all was finite: a GPU would have to wait."""
        bad = self.finite.first_steps() if self.device.type == "cpu" else []
        number, *bad = self.processes.lowest([-(request.signal_number or 0), *bad])
        if bad:
            self._raise_if_bad(*bad)
        return -number

    def _check_finite(self) -> None:
        self._raise_if_bad(*self.processes.lowest(self.finite.first_steps()))

    def _raise_if_bad(self, bad_loss: int, bad_teacher: int) -> None:
        if min(bad_loss, bad_teacher) < NEVER:
            kept = self.processes.broadcast_from_main(self.checkpoints.steps)
            raise not_finite_error(self.stage.name, bad_loss, bad_teacher, self.stage.batches.steps_per_epoch, kept)

    def _end_epoch(self, request: StopRequest) -> None:
        stage, state = self.stage, self.state
        epoch = self.epochs_before + state.step // stage.batches.steps_per_epoch - 1
        self._check_finite()
        samples = stage.batches.num_images
        means = {name: value.item() / samples for name, value in self._summed_over_processes().items()}
        self._sync_statistics()
        validation = self._validate(request)
        self._count_time()
        row: EpochRow = {
            "stage": stage.name,
            "epoch": epoch,
            "loss": means.pop("loss"),
            "terms": _with_prefix("terms/", means),
            "statistics": _with_prefix("statistics/", means),
            "learning_rate": self._learning_rate(state.step - 1),
            "validation": validation,
            "seconds": round(state.epoch_seconds, 3),
            "images_per_second": round(samples / state.epoch_seconds, 1),
        }
        state.history.append(row)
        self.changed = True
        state.sums, state.epoch_seconds = {}, 0.0
        if validation is not None and (state.best is None or headline(validation) > headline(state.best.validation)):
            averaged = {} if self.average is None else self.average.tensors
            weights = {**stage.student.model.state_dict(), **averaged}
            state.best = Best(epoch, validation, {name: value.detach().clone() for name, value in weights.items()})
        self.processes.broadcast_from_main(lambda: self.history.append(row))
        self.reporter.epoch(row, self.all_epochs)

    def _validate(self, request: StopRequest) -> MetricValues | None:
        if self.stage.validate is None:
            return None
        try:
            with request.at_once(), nullcontext() if self.average is None else self.average.applied():
                return self.stage.validate(self.stage.student)
        except Interrupted as stop:
            self._checkpoint()
            raise Interrupted(stop.signal_number, saved=True) from None
        except TrainingError as error:
            epoch = self.epochs_before + self.state.step // self.stage.batches.steps_per_epoch
            raise TrainingError(f"{self.stage.name}, after epoch {epoch}: {error}") from None

    def _checkpoint(self) -> None:
        self._check_finite()
        if not self.changed:
            return
        self._count_time()
        stage = self.stage
        self._sync_statistics()
        state, memory = replace(self.state, sums=self._summed_over_processes()), stage.method.memory_state()
        checkpoint = capture(state, stage.student.model, stage.method, self.optimizer, stage.identity, self.average)
        self.processes.broadcast_from_main(lambda: self.checkpoints.save(checkpoint, memory))
        self.changed = False

    def _sync_statistics(self) -> None:
        if self.freezing.frozen:  # and the mean of equal numbers need not be the same number
            return
        sync_batch_norm_statistics(self.stage.student, self.processes)
        if self.average is not None:
            self.average.sync_buffers(self.processes)

    def _summed_over_processes(self) -> dict[str, Tensor]:
        return {name: self.processes.sum(self.state.sums[name].clone()) for name in sorted(self.state.sums)}

    def _count_time(self, *, of_an_epoch: bool = True) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self.clock
        if of_an_epoch:
            self.state.epoch_seconds += now - self.clock
        self.clock = now


def _with_prefix(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
