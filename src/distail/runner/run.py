"""An experiment, station by station: images, class counts, teacher, objective, student, evaluation, report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distail import files
from distail.config.schema import Experiment, Model, Training
from distail.data.prepare import PreparedData, prepare_data
from distail.errors import CheckpointError, counted
from distail.methods.method import Method
from distail.models import FeatureTap
from distail.models.weights import load_weights, read_metadata, save_weights
from distail.report.build import write_report
from distail.runner.checks import (
    build_method,
    check,
    check_classes,
    needs_teacher,
    read_experiment,
    teacher_method,
    teacher_model,
)
from distail.runner.result import Result, final_evaluation
from distail.runner.run_folder import RunFolder
from distail.runner.stages import (
    build_network,
    build_stage,
    describe_network,
    match_normalization,
    seeded,
    with_training_metadata,
)
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice, configure_malloc, select_device
from distail.training.distributed import Processes, process_group
from distail.training.history import History
from distail.training.loop import fit
from distail.training.progress import Reporter, Silent, default_reporter
from distail.training.signals import stop_requests
from distail.training.stage import Fitted
from distail.training.step import with_shared_statistics
from distail.training.trackers import Tracker, build_trackers


def run(config: Experiment | Mapping[str, Any] | str | Path, *, reporter: Reporter | None = None) -> Result:
    """Run an experiment, resume an unfinished one, or return a finished one at once.

    Args:
        config: an `Experiment`, a mapping with its keys, or the path of a YAML file.
        reporter: who is told of the progress; a progress bar or plain lines on standard error by default.

    Raises:
        DistailError: the experiment, the data or a file cannot be used; raised before any training.
        TrainingError: training had to stop.
    """
    experiment = read_experiment(config)
    folder, trainer = RunFolder(experiment.output), experiment.trainer
    with (
        stop_requests() as request,
        request.at_once(),
        process_group(trainer.device, trainer.process_timeout_minutes) as processes,
        ExitStack() as held,
    ):
        told = (reporter or default_reporter()) if processes.is_main else Silent()
        figures = processes.broadcast_from_main(lambda: folder.finished(experiment, told.message))
        if figures is None:
            processes.broadcast_from_main(lambda: check(experiment, processes))

            def begin() -> Experiment | None:
                held.enter_context(folder.locked(told.message))
                folder.tidy()
                return folder.stored_experiment(experiment)

            stored = processes.broadcast_from_main(begin)
            figures = _Run(experiment, stored, folder, told, processes).run_stages()
            if processes.is_main:
                folder.report.unlink(missing_ok=True)  # of a run that was looked at before it was finished
        result = Result(folder.path, figures)
        return _with_page(result, told) if processes.is_main else result


def _with_page(result: Result, told: Reporter) -> Result:
    page = RunFolder(result.folder).report
    try:
        if not page.is_file():
            write_report(page, [result.folder])
    except OSError as error:
        told.message(f"{page} could not be written ({error.strerror}); the run itself is complete")
    return result


class _Run:
    def __init__(
        self,
        experiment: Experiment,
        stored: Experiment | None,
        folder: RunFolder,
        reporter: Reporter,
        processes: Processes,
    ) -> None:
        self.experiment, self.stored, self.folder, self.reporter = experiment, stored, folder, reporter
        self.processes = processes

    def run_stages(self) -> dict[str, Any]:
        data = self.processes.local_main_first(self.images)
        runtime = self.settle(data)
        # First, though it is trained last: what is wrong with it must not wait for a teacher of many hours.
        student = self.untrained_student(data, runtime)
        self.save_config(runtime)
        history = History(self.folder.path, self.trackers())
        try:
            teacher, teacher_fitted = self.teacher(data, runtime, history)
            student_fitted = self.train_student(student, data, runtime, history, teacher)
        finally:
            history.close()
        listened_to = None if teacher is None else (teacher, teacher_fitted)
        return final_evaluation(self.experiment, self.folder, data, runtime, listened_to, (student, student_fitted))

    def trackers(self) -> list[Tracker]:
        experiment = self.experiment
        return build_trackers(
            experiment.trainer.trackers,
            f"{experiment.name}-seed{experiment.seed}",
            self.folder.path,
            experiment.model_dump(mode="json"),
            self.reporter.message,
        )

    def images(self) -> PreparedData:
        data = prepare_data(self.experiment.data, seed=self.experiment.seed)
        counts = data.class_counts
        self.reporter.message(
            f"{self.experiment.data.name}: {len(data.train):,} training images of {len(counts)} classes "
            f"({max(counts):,} in the largest, {min(counts):,} in the smallest), "
            f"{len(data.validation) if data.validation else 0:,} for validation, {len(data.test):,} for the test; "
            f"subset {data.subset_sha256[:12]}"
        )
        for note in data.notes:
            self.reporter.message(note)
        if data.skipped:
            if self.processes.is_main:
                files.write_text(self.folder.skipped, "\n".join(data.skipped) + "\n")
            self.reporter.message(
                f"skipped {counted(len(data.skipped), 'unreadable image')}, such as {data.skipped[0]}; "
                f"{self.folder.skipped} lists all"
            )
        return data

    def settle(self, data: PreparedData) -> RuntimeDevice:
        """Decide device and number format; the format stays what it was when the run began."""
        trainer = self.experiment.trainer
        precision = self.stored.trainer.precision if self.stored else trainer.precision
        side = min(data.train.image_shape[1:])
        runtime = select_device(trainer.device, precision, side, self.processes)
        if runtime.device.type == "cpu":
            configure_malloc(side)
        return runtime

    def save_config(self, runtime: RuntimeDevice) -> None:
        if self.stored is None:
            settled = self.experiment.trainer.model_copy(update={"precision": runtime.precision})
            text = self.experiment.model_copy(update={"trainer": settled}).to_yaml()
            self.processes.broadcast_from_main(lambda: files.write_text(self.folder.config, text))

    def teacher(
        self, data: PreparedData, runtime: RuntimeDevice, history: History
    ) -> tuple[FeatureTap | None, Fitted | None]:
        options = self.experiment.teacher
        if options is None or options.is_previous_epoch or not needs_teacher(self.experiment):
            return None, None
        network = self.network("teacher", teacher_model(self.experiment), options.classifier, data, runtime)
        fitted = None
        stored = self.folder.weights("teacher")
        if options.checkpoint is not None:
            # A run begun with a teacher ends with it, whatever has become of the file since.
            weights = stored if stored.is_file() else options.checkpoint
            check_classes(weights, data.class_names)
            load_weights(network.model, weights, what="teacher")
            match_normalization(network, weights, data)
        elif self.processes.broadcast_from_main(self.teacher_checkpoints_missing):
            # Trained again it could be another one (on a GPU it would be), and the student is half way.
            self.reporter.message(f"the teacher's checkpoints are gone; {stored} is used as it is")
            # The output lies where the main process is; from it the others take the weights below.
            self.processes.broadcast_from_main(lambda: load_weights(network.model, stored, what="teacher"))
        else:
            method = teacher_method(self.experiment, data.class_counts)
            training = self.experiment.teacher_training
            fitted = self.fit("teacher", network, None, method, training, data, runtime, history)
        self.processes.broadcast_parameters(network.model)

        def keep() -> None:
            if options.checkpoint is None or not stored.is_file():
                described = describe_network(teacher_model(self.experiment), options.classifier, data)
                if options.checkpoint is not None:  # it was trained elsewhere, on what its own file says
                    described = with_training_metadata(read_metadata(options.checkpoint), described)
                save_weights(network.model, stored, described)

        self.processes.broadcast_from_main(keep)
        return network, fitted

    def teacher_checkpoints_missing(self) -> bool:
        folder = self.folder
        checkpoints = CheckpointFolder(folder.checkpoints("teacher")).steps()
        return folder.weights("teacher").is_file() and folder.begun("student") and not checkpoints

    def untrained_student(self, data: PreparedData, runtime: RuntimeDevice) -> FeatureTap:
        options = self.experiment.student
        network = self.network("student", options.model, options.classifier, data, runtime)
        if options.checkpoint is not None and not self.gone("student", options.checkpoint):
            check_classes(options.checkpoint, data.class_names, what="student")
            load_weights(network.model, options.checkpoint, what="student")
        return network

    def train_student(
        self,
        network: FeatureTap,
        data: PreparedData,
        runtime: RuntimeDevice,
        history: History,
        teacher: FeatureTap | None,
    ) -> Fitted:
        options = self.experiment.student
        with seeded(self.experiment.seed, "method"):
            method = build_method(
                self.experiment, data.class_counts, network.feature_dim, teacher.feature_dim if teacher else None
            )
        training = self.experiment.training
        fitted = self.fit("student", network, teacher, method, training, data, runtime, history)
        described = describe_network(options.model, options.classifier, data)
        self.processes.broadcast_from_main(
            lambda: save_weights(network.model, self.folder.weights("student"), described)
        )
        return fitted

    def network(
        self, stage: str, model: Model, classifier: str, data: PreparedData, runtime: RuntimeDevice
    ) -> FeatureTap:
        if self.gone(stage, model.weights):
            model = model.model_copy(update={"weights": None})
        with seeded(self.experiment.seed, f"{stage}-weights"):
            tap = build_network(model, classifier, data)
        if self.experiment.trainer.sync_batch_norm and runtime.world_size > 1:
            tap.model = with_shared_statistics(tap.model)
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        return tap.to(runtime.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def gone(self, stage: str, path: Path | None) -> bool:
        """Whether a file that a stage began with is missing; its checkpoints hold what has become of it."""

        def look() -> bool:
            return path is not None and not path.is_file() and self.folder.begun(stage)

        return self.processes.broadcast_from_main(look)

    def fit(
        self,
        stage: str,
        network: FeatureTap,
        teacher: FeatureTap | None,
        method: Method,
        training: Training,
        data: PreparedData,
        runtime: RuntimeDevice,
        history: History,
    ) -> Fitted:
        experiment, student = self.experiment, self.experiment.student
        begun_with = (
            [student.checkpoint, student.model.weights] if stage == "student" else [teacher_model(experiment).weights]
        )
        gone = [path for path in begun_with if self.gone(stage, path)]
        built = build_stage(experiment, stage, network, teacher, method, training, data, runtime, self.folder.path)

        def refuse() -> None:
            raise CheckpointError(
                f"{stage}: no checkpoint is left to go on from, and to begin anew {str(gone[0])!r} is missing"
            )

        return fit(
            replace(built, prepare=refuse) if gone else built,
            CheckpointFolder(self.folder.checkpoints(stage), self.reporter.message),
            history,
            self.reporter,
            self.experiment.trainer.checkpoint_every_steps,
        )
