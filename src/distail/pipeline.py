"""An experiment, station by station: images, class counts, teacher, objective, student, evaluation, report."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distail import files
from distail.config import Experiment, Model, Training
from distail.data.batches import ImageBatches, evaluation_batches
from distail.data.prepare import PreparedData, prepare_data
from distail.data.seeding import stream_key
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.predictions import save_predictions
from distail.models import FeatureTap, create_model
from distail.models.summary import count_macs, count_parameters
from distail.models.weights import load_weights, save_weights
from distail.objective.method import Method
from distail.preflight import (
    DEFAULT_SHORTCUT,
    build_method,
    check,
    check_classes,
    needs_teacher,
    teacher_method,
    teacher_model,
)
from distail.report.comparison import report_view
from distail.report.page import write_page
from distail.run_folder import SCHEMA_VERSION, RunFolder
from distail.training.checkpoint import CheckpointFolder
from distail.training.history import History
from distail.training.loop import Fitted, Stage, fit
from distail.training.machine import Machine, choose_machine
from distail.training.predict import EVALUATION_BATCH, predict
from distail.training.progress import Reporter, default_reporter
from distail.training.step import frozen


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and everything in its `result.json`."""

    folder: Path
    figures: dict[str, Any]

    @property
    def student(self) -> dict[str, Any]:
        """The student's figures on the test set, last epoch."""
        test: dict[str, Any] = self.figures["student"]["test"]
        return test

    @property
    def teacher(self) -> dict[str, Any] | None:
        """The teacher's figures on the test set, or None where there was no teacher."""
        teacher = self.figures["teacher"]
        return None if teacher is None else teacher["test"]


def run(config: Experiment | Mapping[str, Any] | str | Path, *, reporter: Reporter | None = None) -> Result:
    """Run an experiment, resume an unfinished one, or return a finished one at once.

    Args:
        config: an `Experiment`, a mapping with its keys, or the path of a YAML file.
        reporter: who is told of the progress; a progress bar or plain lines on standard error by default.

    Raises:
        DistailError: the experiment, the data or a file cannot be used; raised before any training.
        TrainingError: training had to stop.
    """
    experiment = as_experiment(config)
    check(experiment)
    folder = RunFolder(experiment.output)
    with folder.locked():
        stored = folder.stored_experiment(experiment)
        finished = folder.stored_result()
        if finished is None:
            finished = _Run(experiment, stored, folder, reporter or default_reporter()).through_all_stations()
        if not folder.report.is_file():
            write_page(folder.report, **vars(report_view([folder.path])))
        return Result(folder.path, finished)


def as_experiment(config: Experiment | Mapping[str, Any] | str | Path) -> Experiment:
    """Whatever describes an experiment, validated."""
    if isinstance(config, Experiment):
        return config
    if isinstance(config, Mapping):
        return Experiment.from_mapping(config)
    return Experiment.from_yaml(config)


class _Run:
    def __init__(
        self, experiment: Experiment, stored: Experiment | None, folder: RunFolder, reporter: Reporter
    ) -> None:
        self.experiment, self.stored, self.folder, self.reporter = experiment, stored, folder, reporter

    def through_all_stations(self) -> dict[str, Any]:
        data = self.images()
        machine = self.settle(data)
        history = History(self.folder.path)
        try:
            teacher, teacher_fitted = self.teacher(data, machine, history)
            student, student_fitted = self.student(data, machine, history, teacher)
        finally:
            history.close()
        return self.evaluation(data, machine, teacher, teacher_fitted, student, student_fitted)

    def images(self) -> PreparedData:
        options = self.experiment.data
        data = prepare_data(
            options.name,
            root=options.root,
            imbalance_factor=options.imbalance_factor,
            profile=options.profile,
            validation=options.validation,
            seed=self.experiment.seed,
            image_size=options.image_size,
            skip_unreadable=options.skip_unreadable,
        )
        counts = data.class_counts
        self.reporter.message(
            f"{options.name}: {len(data.train):,} training images of {len(counts)} classes "
            f"({max(counts):,} in the largest, {min(counts):,} in the smallest), "
            f"{len(data.validation) if data.validation else 0:,} for validation, {len(data.test):,} for the test; "
            f"subset {data.subset_sha256[:12]}"
        )
        if data.skipped:
            self.reporter.message(f"{len(data.skipped)} unreadable images were skipped, such as {data.skipped[0]}")
        return data

    def settle(self, data: PreparedData) -> Machine:
        """Decide device and number format; the format stays what it was when the run began."""
        trainer = self.experiment.trainer
        precision = self.stored.trainer.precision if self.stored else trainer.precision
        machine = choose_machine(trainer.device, precision, min(data.train.images.shape[-2:]))
        if self.stored is None and machine.is_main:
            settled = trainer.model_copy(update={"precision": machine.precision})
            files.write_text(self.folder.config, self.experiment.model_copy(update={"trainer": settled}).to_yaml())
        return machine

    def teacher(
        self, data: PreparedData, machine: Machine, history: History
    ) -> tuple[FeatureTap | None, Fitted | None]:
        options = self.experiment.teacher
        if options is None or options.is_previous_epoch or not needs_teacher(self.experiment):
            return None, None
        network = self.network("teacher", teacher_model(self.experiment), options.classifier, data, machine)
        fitted = None
        stored = self.folder.weights("teacher")
        if options.checkpoint is not None and not stored.is_file():
            check_classes(options.checkpoint, data.class_names)
            load_weights(network.model, options.checkpoint, what="teacher")
        else:
            method = teacher_method(self.experiment, data.class_counts)
            training = self.experiment.teacher_training
            fitted = self.fit("teacher", network, None, method, training, data, machine, history)
        if machine.is_main and not stored.is_file():
            save_weights(network.model, stored, _description(teacher_model(self.experiment), options.classifier, data))
        return network, fitted

    def student(
        self, data: PreparedData, machine: Machine, history: History, teacher: FeatureTap | None
    ) -> tuple[FeatureTap, Fitted]:
        options = self.experiment.student
        network = self.network("student", options.model, options.classifier, data, machine)
        if options.checkpoint is not None:
            load_weights(network.model, options.checkpoint, what="student")
        with _seeded(self.experiment.seed, "method"):
            method = build_method(
                self.experiment, data.class_counts, network.feature_dim, teacher.feature_dim if teacher else None
            )
        training = self.experiment.training
        fitted = self.fit("student", network, teacher, method, training, data, machine, history)
        if machine.is_main:
            save_weights(
                network.model, self.folder.weights("student"), _description(options.model, options.classifier, data)
            )
        return network, fitted

    def network(self, stage: str, model: Model, classifier: str, data: PreparedData, machine: Machine) -> FeatureTap:
        with _seeded(self.experiment.seed, f"{stage}-weights"):
            tap = build_network(model, classifier, data)
        layout = torch.channels_last if machine.channels_last else torch.contiguous_format
        return tap.to(machine.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def fit(
        self,
        stage: str,
        network: FeatureTap,
        teacher: FeatureTap | None,
        method: Method,
        training: Training,
        data: PreparedData,
        machine: Machine,
        history: History,
    ) -> Fitted:
        options, seed = self.experiment.data, int(stream_key(stage, self.experiment.seed)) >> 1
        batches = ImageBatches(
            data.train,
            batch_size=training.batch_size,
            mean=data.mean,
            std=data.std,
            augment=options.augment,
            sampler=options.sampler,
            num_classes=len(data.class_names),
            seed=seed,
            device=machine.device,
            channels_last=machine.channels_last,
            rank=machine.rank,
            world_size=machine.world_size,
        )

        def validate(tap: FeatureTap) -> dict[str, Any]:
            assert data.validation is not None
            logits = predict(tap, data.validation, data.mean, data.std, machine)
            return evaluate_predictions(logits, data.validation.labels, data.class_counts)

        listen = frozen(teacher, machine) if teacher else None

        def prepare() -> None:
            assert listen is not None
            batches = evaluation_batches(
                data.train,
                batch_size=EVALUATION_BATCH,
                mean=data.mean,
                std=data.std,
                device=machine.device,
                channels_last=machine.channels_last,
                rank=machine.rank,
                world_size=machine.world_size,
            )
            method.prepare((listen(batch.images), batch.labels) for batch in batches)

        return fit(
            Stage(
                name=stage,
                student=network,
                teacher=listen,
                method=method.to(machine.device),
                batches=batches,
                validate=validate if data.validation else None,
                training=training,
                machine=machine,
                seed=seed,
                compile=self.experiment.trainer.compile,
                prepare=prepare if method.needs.class_means else None,
            ),
            CheckpointFolder(self.folder.checkpoints(stage), self.reporter.message),
            history,
            self.reporter,
            self.experiment.trainer.checkpoint_every_steps,
        )

    def evaluation(
        self,
        data: PreparedData,
        machine: Machine,
        teacher: FeatureTap | None,
        teacher_fitted: Fitted | None,
        student: FeatureTap,
        student_fitted: Fitted,
    ) -> dict[str, Any]:
        """The only place that sees the test set."""

        def test(network: FeatureTap) -> tuple[torch.Tensor, dict[str, Any]]:
            logits = predict(network, data.test, data.mean, data.std, machine)
            return logits, evaluate_predictions(logits, data.test.labels, data.class_counts)

        logits, student_test = test(student)
        teacher_logits, teacher_test = test(teacher) if teacher else (None, None)
        best = None
        if student_fitted.best is not None:
            student.model.load_state_dict(student_fitted.best.weights)
            best = {
                "epoch": student_fitted.best.epoch,
                "validation": student_fitted.best.validation,
                "test": test(student)[1],
            }
        channels, height, width = data.train.images.shape[1:]
        shape = (channels, height, width)
        networks = {"teacher": teacher, "student": student}
        figures = {
            "schema_version": SCHEMA_VERSION,
            "name": self.experiment.name,
            "seed": self.experiment.seed,
            "method": self.experiment.method_name,
            "class_names": list(data.class_names),
            "class_counts": list(data.class_counts),
            "subset_sha256": data.subset_sha256,
            "teacher": None if teacher is None else {"test": teacher_test},
            "student": {"test": student_test, "best_on_validation": best},
            "timing": {
                "teacher": _timing(teacher_fitted, len(data.train)),
                "student": _timing(student_fitted, len(data.train)),
            },
            "parameters": {name: count_parameters(tap.model) if tap else None for name, tap in networks.items()},
            "macs": {name: count_macs(tap.model, shape) if tap else None for name, tap in networks.items()},
            "versions": versions(machine),
            "config": self.experiment.model_dump(mode="json"),
        }
        if machine.is_main:
            save_predictions(self.folder.predictions, logits, data.test.labels, teacher_logits)
            files.write_json(self.folder.result, figures)
        return figures


def build_network(model: Model, classifier: str, data: PreparedData) -> FeatureTap:
    """A tapped network that fits the data."""
    channels, height, width = data.train.images.shape[1:]
    classes = len(data.class_names)
    bare = create_model(
        model.name,
        num_classes=classes,
        in_channels=channels,
        shortcut=model.shortcut or DEFAULT_SHORTCUT,
        classifier=classifier,
        image_size=min(height, width),
        weights=model.weights,
        mean=data.mean,
        std=data.std,
    )
    return FeatureTap(bare, classes)


def versions(machine: Machine) -> dict[str, str]:
    """What the figures were made with."""
    return {
        "distail": version("distail"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(machine.device) if machine.device.type == "cuda" else machine.device.type,
        "precision": machine.precision,
        "processes": str(machine.world_size),
    }


def _description(model: Model, classifier: str, data: PreparedData) -> dict[str, str]:
    return {
        "model": model.name,
        "shortcut": model.shortcut or DEFAULT_SHORTCUT,
        "classifier": classifier,
        "class_names": json.dumps(list(data.class_names)),
        "in_channels": str(data.train.images.shape[1]),
        "mean": json.dumps(list(data.mean)),
        "std": json.dumps(list(data.std)),
        "subset_sha256": data.subset_sha256,
    }


def _timing(fitted: Fitted | None, images: int) -> dict[str, float] | None:
    if fitted is None:
        return None
    trained = images * len(fitted.history)
    return {"seconds": round(fitted.seconds, 3), "images_per_second": round(trained / fitted.seconds, 1)}


class _seeded:  # noqa: N801 (reads as a function)
    """Torch's generator, seeded for one purpose and put back afterwards."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._seed = int(stream_key(purpose, seed)) >> 1
        self._fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *reason: Any) -> None:
        self._fork.__exit__(*reason)
