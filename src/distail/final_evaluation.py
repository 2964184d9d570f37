"""The end of a run: the only place that sees the test set."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from distail import files
from distail.config import Experiment
from distail.data.prepare import PreparedData
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.predictions import save_predictions
from distail.evaluation.samples import change_order, sample_images, save_samples
from distail.models import FeatureTap
from distail.result import Tested, result_figures
from distail.run_folder import RunFolder
from distail.training.finite import check_logits
from distail.training.machine import Machine
from distail.training.predict import predict
from distail.training.stage import Fitted


def final_evaluation(
    experiment: Experiment,
    folder: RunFolder,
    data: PreparedData,
    machine: Machine,
    teacher: tuple[FeatureTap, Fitted | None] | None,
    student: tuple[FeatureTap, Fitted],
) -> dict[str, Any]:
    """What becomes `result.json`: both networks as they ended, and the student at its best epoch on validation.

    Predictions and sample images are written beside it. The student is left with the weights of that epoch.
    """

    def test(network: FeatureTap, whose: str) -> tuple[Tensor, dict[str, Any]]:
        logits = predict(network, data.test, data.mean, data.std, machine)
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
        result = result_figures(experiment, data, machine, tested_teacher, tested, best)
        save_predictions(folder.predictions, logits, data.test.labels, teacher_logits)
        save_samples(folder.samples, sample_images(data.test, _by_change(tested, tested_teacher)))
        files.write_json(folder.result, result)
        return result

    return machine.processes.from_main(write)


def _after(stage: str, fitted: Fitted | None) -> str:
    return f"{stage}, after epoch {len(fitted.history)}" if fitted else stage


def _by_change(student: Tested, teacher: Tested | None) -> list[int]:
    """Classes from most to least changed by distillation; without a teacher, by distance from the mean recall."""
    recalls = student.figures["per_class_recall"]
    mean = [student.figures["balanced_accuracy"]] * len(recalls)
    return change_order(recalls, teacher.figures["per_class_recall"] if teacher else mean)
