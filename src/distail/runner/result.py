"""What a finished run leaves in `result.json`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distail import files
from distail._version import __version__
from distail.evaluation.metrics import MetricValues, evaluate_predictions
from distail.evaluation.predictions import save_predictions
from distail.models import FeatureTap
from distail.models.summary import count_macs, count_parameters
from distail.report.samples import change_order, sample_images, save_samples
from distail.runner.run_folder import SCHEMA_VERSION
from distail.runner.stages import RunContext, Trained
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
        """The student's metrics on the test set, last epoch."""
        test: dict[str, Any] = self.figures["student"]["test"]
        return test

    @property
    def teacher(self) -> dict[str, Any] | None:
        """The teacher's metrics on the test set, or None where there was no teacher."""
        teacher = self.figures["teacher"]
        return None if teacher is None else teacher["test"]


def final_evaluation(run: RunContext, teacher: Trained | None, student: Trained) -> dict[str, Any]:
    """What becomes `result.json`: both networks as they ended, and the student at its best epoch on validation.

    Predictions and sample images are written beside it. The student is left with the weights of that epoch.
    """
    student_NC, student_test = _test(run, student.network, _after("student", student.fitted))
    teacher_NC, teacher_test = None, None
    if teacher is not None:
        teacher_NC, teacher_test = _test(run, teacher.network, _after("teacher", teacher.fitted))
    best = _best_on_validation(run, student)

    def write() -> dict[str, Any]:
        stages = {"teacher": teacher, "student": student}
        result = {
            **_identity(run),
            "teacher": None if teacher_test is None else {"test": teacher_test},
            "student": {"test": student_test, "best_on_validation": best},
            **_costs(run, stages),
            "versions": versions(run.runtime),
            "config": run.experiment.model_dump(mode="json"),
        }
        save_predictions(run.folder.predictions, student_NC, run.data.test.labels, teacher_NC)
        shown = sample_images(run.data.test, _by_change(student_test, teacher_test))
        save_samples(run.folder.samples, shown)
        files.write_json(run.folder.result, result)
        return result

    return run.runtime.processes.broadcast_from_main(write)


def _test(run: RunContext, network: FeatureTap, whose: str) -> tuple[Tensor, MetricValues]:
    data = run.data
    logits_NC = predict(network, data.test, data.mean, data.std, run.runtime)
    check_logits(logits_NC, f"{whose}: test")
    return logits_NC, evaluate_predictions(logits_NC, data.test.labels, data.class_counts)


def _best_on_validation(run: RunContext, student: Trained) -> dict[str, Any] | None:
    best = student.fitted.best if student.fitted else None
    if best is None:
        return None
    student.network.model.load_state_dict(best.weights)
    _, test = _test(run, student.network, f"student, after epoch {best.epoch + 1}")
    return {"epoch": best.epoch, "validation": best.validation, "test": test}


def _identity(run: RunContext) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "name": run.experiment.name,
        "seed": run.experiment.seed,
        "method": run.experiment.method_name,
        "class_names": list(run.data.class_names),
        "class_counts": list(run.data.class_counts),
        "subset_sha256": run.data.subset_sha256,
        "notes": list(run.data.notes),
    }


def _costs(run: RunContext, stages: Mapping[str, Trained | None]) -> dict[str, Any]:
    shape, images = run.data.train.image_shape, len(run.data.train)
    costs: dict[str, dict[str, Any]] = {"timing": {}, "parameters": {}, "macs": {}}
    for name, stage in stages.items():
        costs["timing"][name] = _timing(stage, images)
        costs["parameters"][name] = count_parameters(stage.network.model) if stage else None
        costs["macs"][name] = count_macs(stage.network.model, shape) if stage else None
    return costs


def _timing(stage: Trained | None, images: int) -> dict[str, float] | None:
    if stage is None or stage.fitted is None:
        return None
    seconds = stage.fitted.seconds
    return {"seconds": round(seconds, 3), "images_per_second": round(images * len(stage.fitted.history) / seconds, 1)}


def versions(runtime: RuntimeDevice) -> dict[str, str]:
    """What the metrics were made with."""
    return {
        "distail": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else runtime.device.type,
        "precision": runtime.precision,
        "processes": str(runtime.processes.size),
    }


def _after(stage: str, fitted: Fitted | None) -> str:
    return f"{stage}, after epoch {len(fitted.history)}" if fitted else stage


def _by_change(student: MetricValues, teacher: MetricValues | None) -> list[int]:
    """Classes from most to least changed by distillation; without a teacher, by distance from the mean recall."""
    recalls = student["per_class_recall"]
    mean = [student["balanced_accuracy"]] * len(recalls)
    return change_order(recalls, teacher["per_class_recall"] if teacher else mean)
