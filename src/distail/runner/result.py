"""What a finished run leaves in `result.json`.

Shapes: N images, C classes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from distail import files
from distail.data.dataset import image_names
from distail.evaluation.metrics import MetricValues, evaluate_predictions
from distail.evaluation.predictions import save_predictions, save_predictions_table
from distail.evaluation.run_files import SCHEMA_VERSION, BestOnValidation, ByStage, RunResult, StageResult, Timing
from distail.models import FeatureTap
from distail.models.summary import count_macs, count_parameters
from distail.report.samples import delta_order, sample_images, save_samples
from distail.runner.context import RunContext
from distail.runner.stages import Trained
from distail.runner.train_network import teacher_hash
from distail.training.device import RuntimeDevice
from distail.training.finite import check_logits
from distail.training.identity import arithmetic
from distail.training.predict import predict
from distail.training.stage import Fitted

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and everything in its `result.json`."""

    folder: Path
    figures: RunResult

    @property
    def student(self) -> MetricValues:
        """The student's metrics on the test set, last epoch."""
        return self.figures["student"]["test"]

    @property
    def teacher(self) -> MetricValues | None:
        """The teacher's metrics on the test set, or None where there was no teacher."""
        teacher = self.figures["teacher"]
        return None if teacher is None else teacher["test"]


def final_evaluation(run: RunContext, teacher: Trained | None, student: Trained) -> RunResult:
    """What becomes `result.json`: both networks as they ended, and the student at its best epoch on validation.

    Predictions and sample images are written beside it. The student is left with the weights of that epoch.
    """
    student_NC, student_test = _test(run, student.network, _after("student", student.fitted))
    teacher_NC, teacher_test = None, None
    if teacher is not None:
        teacher_NC, teacher_test = _test(run, teacher.network, _after("teacher", teacher.fitted))
    best = _best_on_validation(run, student)

    def write() -> RunResult:
        run.require_folder()
        result = _content(run, teacher, student, teacher_test, student_test, best)
        test = run.data.test
        save_predictions(run.folder.predictions, student_NC, test.labels, teacher_NC)
        names = image_names(test, "test")
        save_predictions_table(run.folder.predictions_table, names, student_NC, test.labels, run.data.class_names)
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


def _best_on_validation(run: RunContext, student: Trained) -> BestOnValidation | None:
    best = student.fitted.best if student.fitted else None
    if best is None:
        return None
    student.network.model.load_state_dict(best.weights)
    _, test = _test(run, student.network, f"student, after epoch {best.epoch + 1}")
    return {"epoch": best.epoch, "validation": best.validation, "test": test}


def _content(
    run: RunContext,
    teacher: Trained | None,
    student: Trained,
    teacher_test: MetricValues | None,
    student_test: MetricValues,
    best: BestOnValidation | None,
) -> RunResult:
    assert student.fitted is not None
    data, images, shape = run.data, len(run.data.train), run.data.train.image_shape
    return {
        "schema_version": SCHEMA_VERSION,
        "name": run.experiment.name,
        "seed": run.experiment.seed,
        "method": run.experiment.method_name,
        "class_names": list(data.class_names),
        "class_counts": list(data.class_counts),
        "subset_sha256": data.subset_sha256,
        "notes": [*data.notes, *run.notes],
        "teacher": None if teacher is None or teacher_test is None else _of_stage(teacher, teacher_test),
        "student": {**_of_stage(student, student_test), "best_on_validation": best},
        "timing": {
            "teacher": _timing(teacher.fitted, images) if teacher and teacher.fitted else None,
            "student": _timing(student.fitted, images),
        },
        "parameters": _by_stage(teacher, student, lambda stage: count_parameters(stage.network.model)),
        "macs": _by_stage(teacher, student, lambda stage: count_macs(stage.network.model, shape)),
        "identity": {**run.identity, "teacher": teacher_hash(teacher.network if teacher else None)},
        "versions": versions(run.runtime),
        "config": run.experiment.model_dump(mode="json"),
    }


def _of_stage(trained: Trained, test: MetricValues) -> StageResult:
    if trained.fitted is None:
        return {"test": test}
    return {"test": test, "weights": "averaged" if trained.fitted.averaged else "last"}


def _by_stage(teacher: Trained | None, student: Trained, value: Callable[[Trained], T]) -> ByStage[T]:
    return {"teacher": None if teacher is None else value(teacher), "student": value(student)}


def _timing(fitted: Fitted, images: int) -> Timing:
    each_second = images * len(fitted.history) / fitted.seconds
    return {"seconds": round(fitted.seconds, 3), "images_per_second": round(each_second, 1)}


def versions(runtime: RuntimeDevice) -> dict[str, str]:
    """What the metrics were made with."""
    return {
        **arithmetic(),
        "python": platform.python_version(),
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
    return delta_order(recalls, teacher["per_class_recall"] if teacher else mean)
