"""A dry run: all that `run` does before training, then ten timed steps of each stage, and nothing that stays."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from distail.config.schema import Experiment
from distail.data.dataset import StreamedImages, is_images
from distail.data.input_sources import sample_inputs
from distail.data.items import StreamedItems
from distail.data.labels import is_multi_label
from distail.data.long_tail import class_counts
from distail.data.prepare import PreparedData
from distail.errors import ConfigError
from distail.files import MEGABYTE
from distail.inputs import first_tensor
from distail.models.summary import count_macs, count_parameters
from distail.outputs import Outputs
from distail.runner.checks import check, check_fits_data, check_memory, read_experiment, teacher_model
from distail.runner.compositions import needs_of
from distail.runner.context import STUDENT, TEACHER, RunContext
from distail.runner.identity import identity_of
from distail.runner.precision import select_run_device
from distail.runner.run import read_images, select_threads
from distail.runner.run_folder import RunFolder
from distail.runner.stages import prepare_teacher, train_student, untrained_student
from distail.runner.training_notes import training_notes
from distail.runner.views import asked_at_every_step, stored_views, with_settled_views
from distail.training.checkpoint import KEPT, CheckpointFolder
from distail.training.device import RuntimeDevice
from distail.training.distributed import SINGLE_PROCESS
from distail.training.history import History
from distail.training.identity import Identity, changed_parts
from distail.training.loop import fit
from distail.training.progress import Reporter, Silent
from distail.training.stage import Fitted, Stage
from distail.training.threads import threads

WARM_UP, TIMED = 2, 10
# Without gradients a network looks at an image in about a third of the time that learning from it takes.
_LOOKING = 1 / 3


@dataclass(frozen=True)
class PlannedStage:
    """One training: its network, its steps, and what ten of them took.

    Attributes:
        seconds_a_step: the median of the timed steps.
        seconds: a guess for the whole stage, with validation after each epoch.
        checkpoint_megabytes: one checkpoint, of which the folder keeps two.
    """

    name: str
    model: str
    parameters: int
    macs: int
    epochs: int
    steps: int
    batch_size: int
    precision: str
    seconds_a_step: float
    seconds: float
    checkpoint_megabytes: float


@dataclass(frozen=True)
class RunPlan:
    """What a run would do.

    Attributes:
        class_counts: images of each class for training, validation and test.
        image_megabytes: what the images take in memory; None where they stay on disk.
        peak_megabytes: the most memory that was in use until the last timed step; None where the system does not say.
        files: what would be written, and how large; None where that is not known.
        standing: what the output folder holds already; None for a new one.
        reading: what was read, in the words of the run.
        warnings: all that the run would tell of its data and networks, and what the guess leaves out.
    """

    experiment: Experiment
    data: PreparedData
    class_counts: Mapping[str, Sequence[int]]
    image_megabytes: float | None
    runtime: RuntimeDevice
    threads: int
    peak_megabytes: float | None
    stages: Sequence[PlannedStage]
    files: Mapping[Path, float | None]
    standing: str | None
    reading: str
    warnings: Sequence[str]

    @property
    def seconds(self) -> float:
        """A guess for the whole training; reading the images and the page at the end come on top."""
        return sum(stage.seconds for stage in self.stages)


def plan_run(config: Experiment | Mapping[str, Any] | str | Path) -> RunPlan:
    """What `run` would do with this experiment; nothing is trained, and the output folder is left as it is.

    Raises:
        DistailError: whatever `run` would refuse before training.
    """
    experiment = read_experiment(config)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--plan runs in one process; start it without torchrun or accelerate launch")
    check(experiment)
    with _scratch_folder() as scratch:
        told = _Told({str(scratch): str(experiment.output)})
        data = read_images(experiment, RunFolder(scratch), told, SINGLE_PROCESS)
        check_memory(experiment, data.class_counts)
        check_fits_data(experiment, data.train)
        standing = _standing(experiment)  # after the data, whose problems another output would not solve
        runtime, formats, notes = select_run_device(experiment, None, data, SINGLE_PROCESS)
        experiment, views_notes = with_settled_views(experiment, None, data, formats)
        timer = _StepTimer(experiment, data)
        context = RunContext(
            experiment=asked_at_every_step(experiment),
            folder=RunFolder(scratch),
            data=data,
            runtime=runtime,
            history=History(scratch),
            reporter=told,
            identity=identity_of(experiment, data, None),
            require_folder=lambda: None,
            fit=timer.fit,
            formats=formats,
        )
        context.note(*training_notes(experiment, data), *notes, *views_notes)
        count = select_threads(experiment, None, runtime, told)
        with threads(count):
            student = untrained_student(context)
            train_student(context, student, prepare_teacher(context))
        weights = {path.name: path.stat().st_size / MEGABYTE for path in scratch.glob("*.safetensors")}
    images = (data.train, data.validation, data.test)
    in_memory = not any(isinstance(each, StreamedImages | StreamedItems) for each in images)
    sizes = [len(each) * _bytes_of_one(data) for each in images if each is not None]
    return RunPlan(
        experiment=experiment,
        data=data,
        class_counts=_class_counts(data),
        image_megabytes=sum(sizes) / MEGABYTE if in_memory else None,
        runtime=runtime,
        threads=count,
        peak_megabytes=_peak_megabytes(runtime),
        stages=timer.stages,
        files=_files(experiment, data, weights, timer.stages),
        standing=standing,
        reading=told.messages[0],
        warnings=[*_changed(experiment, context.identity), *told.messages[1:], *_left_out(experiment)],
    )


class _Told(Silent):
    """Keeps what the user is told, each sentence once; folders by the names that the run's own would have."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.messages: list[str] = []
        self._names = names

    def message(self, text: str) -> None:
        for name, real in self._names.items():
            text = text.replace(name, real)
        if text not in self.messages:
            self.messages.append(text)


class _Enough(Exception):
    """The last timed step is done."""


class _Clock(Silent):
    """Times each step, and ends the training after the last that is wanted."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.times: list[float] = []

    def start(self, stage: str, epochs: int, steps_per_epoch: int, done_steps: int) -> None:
        self.times.append(time.perf_counter())

    def step(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.times.append(time.perf_counter())
        if len(self.times) > WARM_UP + TIMED:
            raise _Enough

    def seconds_a_step(self) -> float:
        steps = [end - begin for begin, end in zip(self.times, self.times[1:], strict=False)]
        return median(steps[WARM_UP:] or steps)


class _StepTimer:
    """Stands in for the loop's `fit`: a few real steps of each stage."""

    def __init__(self, experiment: Experiment, data: PreparedData) -> None:
        self._experiment, self._data = experiment, data
        self.stages: list[PlannedStage] = []

    def fit(
        self, stage: Stage, checkpoints: CheckpointFolder, history: History, reporter: Reporter, checkpoint_every: int
    ) -> Fitted:
        clock = _Clock(stage.runtime.device)
        # The longer steps are timed, unless there are none but of the classifier.
        frozen = stage.frozen_epochs if stage.frozen_epochs == stage.training.epochs else 0
        short = replace(
            stage, validate=None, fill=None, prepare=lambda: _made_up_class_means(stage), frozen_epochs=frozen
        )
        with suppress(_Enough):
            fit(short, checkpoints, history, clock, sys.maxsize)
        self.stages.append(self._planned(stage, clock.seconds_a_step()))
        return Fitted(0.0, [], None)

    def _planned(self, stage: Stage, seconds_a_step: float) -> PlannedStage:
        training, network, data = stage.training, stage.student.model, self._data
        steps = stage.batches.steps_per_epoch * training.epochs
        looked_at = training.epochs * len(data.validation) if data.validation else 0
        # Weights, what the optimizer remembers of each, the best epoch's weights, and averaged ones.
        copies = 1 + (2 if training.optimizer == "adamw" else bool(training.momentum)) + bool(data.validation)
        copies += training.ema_decay is not None
        parameters = count_parameters(network)
        model = self._experiment.student.model if stage.name == STUDENT else teacher_model(self._experiment)
        return PlannedStage(
            name=stage.title,
            model=model.name,
            parameters=parameters,
            macs=count_macs(network, sample_inputs(data.train, 1)),
            epochs=training.epochs,
            steps=steps,
            batch_size=training.batch_size,
            precision=stage.runtime.precision,
            seconds_a_step=seconds_a_step,
            seconds=seconds_a_step * (steps + looked_at / training.batch_size * _LOOKING),
            checkpoint_megabytes=4 * parameters * copies / MEGABYTE,
        )


def _made_up_class_means(stage: Stage) -> None:
    """One feature a class instead of a pass over all images, which the steps that are timed do not depend on."""
    if stage.method.needs.class_means and stage.teacher is not None:
        seen = stage.teacher(next(stage.batches.epoch(0)))
        assert seen.features is not None
        classes, width = seen.logits.shape[1], seen.features.shape[1]
        features = torch.randn(classes, width, device=seen.features.device)
        labels = torch.arange(classes, device=features.device)
        stage.method.prepare([(Outputs(features.new_zeros(classes, classes), features), labels)])


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="distail-plan-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _standing(experiment: Experiment) -> str | None:
    """What the output folder holds of this experiment; of another one it is refused."""
    folder = RunFolder(experiment.output)
    if folder.finished(experiment, lambda message: None) is not None:
        return "holds this run, finished: `distail run` returns its result at once"
    folder.check_place()
    if folder.stored_experiment(experiment) is None:
        return None
    done = [f"{stage} after step {steps[-1]:,}" for stage in (TEACHER, STUDENT) if (steps := _steps(folder, stage))]
    where = ", ".join(done) or "before its first checkpoint"
    return f"holds this run, stopped ({where}): `distail run` resumes from there"


def _changed(experiment: Experiment, now: Identity) -> list[str]:
    """What of the data is another now than that of the run which the output folder holds."""
    recorded = RunFolder(experiment.output).recorded_identities()
    changes = [changed_parts(identity, {**now, "teacher": identity.get("teacher")}) for identity in recorded]
    return [
        f"{experiment.output} holds a run whose data have changed: {change}. `distail run` does not go on "
        "with it; choose another output"
        for change in dict.fromkeys(change for found in changes for change in found)
    ]


def _steps(folder: RunFolder, stage: str) -> list[int]:
    return CheckpointFolder(folder.checkpoints(stage)).steps()


def _left_out(experiment: Experiment) -> list[str]:
    teacher, epochs = experiment.teacher, experiment.training.backbone_epochs
    if teacher is None or not (needs_of(experiment).teacher and stored_views(teacher.views, epochs)):
        return []
    return [
        f"the estimate runs the teacher at every step; with teacher.views: {teacher.views} it runs once per view of "
        "each image, before the first step, which takes less time"
    ]


def _bytes_of_one(data: PreparedData) -> int:
    """What an example takes in memory."""
    if is_images(data.train):
        return math.prod(data.train.image_shape)
    return first_tensor(sample_inputs(data.train, 1)).nbytes


def _class_counts(data: PreparedData) -> dict[str, tuple[int, ...]]:
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    classes = len(data.class_names)
    return {name: class_counts(images.labels, classes) for name, images in splits.items() if images is not None}


def _files(
    experiment: Experiment, data: PreparedData, weights: Mapping[str, float], stages: Sequence[PlannedStage]
) -> dict[Path, float | None]:
    folder = RunFolder(experiment.output)
    images = len(data.test) + (len(data.validation) if data.validation else 0)
    logits = 4 * images * len(data.class_names) / MEGABYTE
    files: dict[Path, float | None] = {folder.path / name: size for name, size in sorted(weights.items())}
    files |= {folder.checkpoints(stage.name): KEPT * stage.checkpoint_megabytes for stage in stages}
    files[folder.predictions] = logits * (2 if "teacher.safetensors" in weights else 1)
    files |= dict.fromkeys((folder.predictions_table, folder.config, folder.metrics, folder.result, folder.report))
    sampled = is_images(data.test) and not is_multi_label(data.test.labels)
    files |= dict.fromkeys([folder.samples] * sampled + [folder.skipped] * bool(data.skipped))
    files |= {folder.path / tracker: None for tracker in experiment.trainer.trackers}
    return files


def _peak_megabytes(runtime: RuntimeDevice) -> float | None:
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated(runtime.device) / MEGABYTE
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MEGABYTE if sys.platform == "darwin" else peak / 1024
