"""What a finished run leaves in `result.json`."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distail import files
from distail._version import __version__
from distail.config.schema import Experiment
from distail.data.prepare import PreparedData
from distail.evaluation.metrics import MetricValues, evaluate_predictions
from distail.evaluation.predictions import save_predictions
from distail.models import FeatureTap
from distail.models.summary import count_macs, count_parameters
from distail.report.samples import change_order, sample_images, save_samples
from distail.runner.run_folder import SCHEMA_VERSION, RunFolder
from distail.training.device import RuntimeDevice
from distail.training.finite import check_logits
from distail.training.predict import predict
from distail.training.stage import Fitted


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


@dataclass(frozen=True)
class Tested:
    """A network with its time in training (None: it was loaded) and its figures on the test set."""

    network: FeatureTap
    fitted: Fitted | None
    figures: MetricValues


def result_figures(
    experiment: Experiment,
    data: PreparedData,
    runtime: RuntimeDevice,
    teacher: Tested | None,
    student: Tested,
    best: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of `result.json`: a contract, whose changes raise `SCHEMA_VERSION`."""
    shape = data.train.image_shape
    stages = {"teacher": teacher, "student": student}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": experiment.name,
        "seed": experiment.seed,
        "method": experiment.method_name,
        "class_names": list(data.class_names),
        "class_counts": list(data.class_counts),
        "subset_sha256": data.subset_sha256,
        "notes": list(data.notes),
        "teacher": None if teacher is None else {"test": teacher.figures},
        "student": {"test": student.figures, "best_on_validation": best},
        "timing": {name: _timing(stage, len(data.train)) for name, stage in stages.items()},
        "parameters": {
            name: count_parameters(stage.network.model) if stage else None for name, stage in stages.items()
        },
        "macs": {name: count_macs(stage.network.model, shape) if stage else None for name, stage in stages.items()},
        "versions": versions(runtime),
        "config": experiment.model_dump(mode="json"),
    }


def versions(runtime: RuntimeDevice) -> dict[str, str]:
    """What the figures were made with."""
    return {
        "distail": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else runtime.device.type,
        "precision": runtime.precision,
        "processes": str(runtime.world_size),
    }


def _timing(stage: Tested | None, images: int) -> dict[str, float] | None:
    if stage is None or stage.fitted is None:
        return None
    seconds = stage.fitted.seconds
    return {"seconds": round(seconds, 3), "images_per_second": round(images * len(stage.fitted.history) / seconds, 1)}


def final_evaluation(
    experiment: Experiment,
    folder: RunFolder,
    data: PreparedData,
    runtime: RuntimeDevice,
    teacher: tuple[FeatureTap, Fitted | None] | None,
    student: tuple[FeatureTap, Fitted],
) -> dict[str, Any]:
    """What becomes `result.json`: both networks as they ended, and the student at its best epoch on validation.

    Predictions and sample images are written beside it. The student is left with the weights of that epoch.
    """

    def test(network: FeatureTap, whose: str) -> tuple[Tensor, MetricValues]:
        logits = predict(network, data.test, data.mean, data.std, runtime)
        check_logits(logits, f"{whose}: test")
        return logits, evaluate_predictions(logits, data.test.labels, data.class_counts)

    network, fitted = student
    logits, figures = test(network, _after("student", fitted))
    tested, tested_teacher, teacher_logits = Tested(network, fitted, figures), None, None
    if teacher is not None:
        teacher_logits, teacher_figures = test(teacher[0], _after("teacher", teacher[1]))
        tested_teacher = Tested(*teacher, teacher_figures)
    best = None
    if fitted.best is not None:
        network.model.load_state_dict(fitted.best.weights)
        best = {
            "epoch": fitted.best.epoch,
            "validation": fitted.best.validation,
            "test": test(network, f"student, after epoch {fitted.best.epoch + 1}")[1],
        }

    def write() -> dict[str, Any]:
        result = result_figures(experiment, data, runtime, tested_teacher, tested, best)
        save_predictions(folder.predictions, logits, data.test.labels, teacher_logits)
        save_samples(folder.samples, sample_images(data.test, _by_change(tested, tested_teacher)))
        files.write_json(folder.result, result)
        return result

    return runtime.processes.broadcast_from_main(write)


def _after(stage: str, fitted: Fitted | None) -> str:
    return f"{stage}, after epoch {len(fitted.history)}" if fitted else stage


def _by_change(student: Tested, teacher: Tested | None) -> list[int]:
    """Classes from most to least changed by distillation; without a teacher, by distance from the mean recall."""
    recalls = student.figures["per_class_recall"]
    mean = [student.figures["balanced_accuracy"]] * len(recalls)
    return change_order(recalls, teacher.figures["per_class_recall"] if teacher else mean)
