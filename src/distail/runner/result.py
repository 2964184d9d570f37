"""What a finished run leaves in `result.json`.

Shapes: N images, C classes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor

from distail import files
from distail.config.section import AUTO
from distail.config.tau import Tau
from distail.data.dataset import Examples, image_names, is_images
from distail.data.input_sources import sample_inputs
from distail.data.labels import is_multi_label
from distail.evaluation.adjustment import (
    Adjustment,
    corrected_in_part,
    describe_adjustment,
    evaluate_adjusted,
    settle,
)
from distail.evaluation.headline import headline, headline_path
from distail.evaluation.metrics import METRICS, MetricValues
from distail.evaluation.predictions import Predictions, save_predictions, save_predictions_table
from distail.evaluation.run_files import (
    SCHEMA_VERSION,
    BestOnValidation,
    ByStage,
    RunResult,
    StageResult,
    TeacherResult,
    Timing,
)
from distail.functional import remove_prior
from distail.methods.context import BALANCED
from distail.models import FeatureTap
from distail.models.metadata import ADJUST
from distail.models.summary import count_macs, count_parameters
from distail.models.weights import read_metadata
from distail.report.samples import delta_order, sample_images, save_samples
from distail.runner.context import STUDENT, TEACHER, RunContext
from distail.runner.deployment import deployment_of
from distail.runner.posterior import student_posterior, teacher_posterior
from distail.runner.stages import Trained
from distail.runner.stored_teacher import StoredTeacher
from distail.runner.train_network import teacher_hash
from distail.training.device import RuntimeDevice
from distail.training.finite import check_logits
from distail.training.identity import arithmetic
from distail.training.predict import predict
from distail.training.stage import Fitted

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and everything in its `result.json`. A notebook shows it as a table and a picture."""

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

    def __repr__(self) -> str:
        title = METRICS[headline_path(self.student)].title
        return f"Result({str(self.folder)!r}, {title[0].lower()}{title[1:]} {headline(self.student):.1f})"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the table and the picture of the run's page, while its folder is there."""
        from distail.report.notebook import run_html

        return run_html(self.folder) if self.folder.is_dir() else None


def final_evaluation(run: RunContext, teacher: Trained | StoredTeacher | None, student: Trained) -> RunResult:
    """What becomes `result.json`: both networks as they ended, and the student at its best epoch on validation.

    Predictions and sample images are written beside it. The student is left with the weights of that epoch.
    """
    held_out, after = run.data.validation, _after("student", student.fitted)
    tested = _tested(run, student.network, after, held_out, run.experiment.adjust)
    answers_NC = tested.logits
    if tested.adjust is not None:
        tau = tested.adjust["tau"]
        answers_NC = remove_prior(answers_NC, run.data.class_counts, tau)
        said = describe_adjustment("the student", tested.adjust)
        run.note(
            f"{said}; the stored weights are not adjusted: use distail predict --adjust {tau:g} for the same "
            "predictions"
        )
    elif (
        student_posterior(run.experiment, run.data) == BALANCED
        and tested.test_adjusted is not None
        and tested.validation is not None
        and held_out is not None
    ):
        run.note(
            *corrected_in_part(tested.validation, held_out.labels, run.data.class_counts, taught=teacher is not None)
        )
    taught_by = _tested_teacher(run, teacher)
    best = _best_on_validation(run, student)

    def write() -> RunResult:
        run.require_folder()
        if tested.adjust is not None:
            weights = run.folder.weights(STUDENT)
            tensors, described = files.read_tensors(weights)
            files.write_tensors(weights, tensors, {**described, ADJUST: f"{tested.adjust['tau']:g}"})
        result = _content(run, teacher, student, taught_by, tested, best)
        test = run.data.test
        save_predictions(
            run.folder.predictions,
            tested.logits,
            test.labels,
            taught_by.logits if taught_by else None,
            _held_out(run, tested, taught_by or teacher),
        )
        names = image_names(test, "test")
        save_predictions_table(run.folder.predictions_table, names, answers_NC, test.labels, run.data.class_names)
        if is_images(test) and not is_multi_label(test.labels):
            shown = sample_images(test, _by_change(tested.test, taught_by.test if taught_by else None))
            save_samples(run.folder.samples, shown)
        files.write_json(run.folder.result, result)
        return result

    return run.runtime.processes.broadcast_from_main(write)


@dataclass(frozen=True)
class Tested:
    """What a network gives, and what comes of it.

    Attributes:
        logits: for the test images, (N, C).
        validation: for the validation split; None without one, or where nobody needs them.
        adjust: how the logits were adjusted for `test`; None where they were not.
        test_adjusted: metrics of logits adjusted with tau 1, whatever `adjust` says; None where an image may have
            several classes, whose average precisions it would not change.
    """

    logits: Tensor
    validation: Tensor | None
    adjust: Adjustment | None
    test: MetricValues
    test_adjusted: MetricValues | None


def _tested(
    run: RunContext,
    network: FeatureTap,
    whose: str,
    validation: Examples | None,
    adjust: Tau | None = None,
) -> Tested:
    data = run.data

    def logits_of(images: Examples, split: str) -> Tensor:
        what = f"{whose}: {split}"
        logits_NC = predict(network, images, data.mean, data.std, run.runtime, tell=run.reporter.message, what=what)
        check_logits(logits_NC, what)
        return logits_NC

    test_NC = logits_of(data.test, "test")
    return _of_logits(run, test_NC, None if validation is None else logits_of(validation, "validation"), adjust)


def _tested_teacher(run: RunContext, teacher: Trained | StoredTeacher | None) -> Tested | None:
    """The teacher on the test images; None where there is none, or a file that says nothing of them."""
    if isinstance(teacher, Trained):
        return _tested(run, teacher.network, _after("teacher", teacher.fitted), run.data.validation)
    test_NC = None if teacher is None else teacher.logits("test")
    if teacher is None or test_NC is None:
        return None
    return _of_logits(run, test_NC, teacher.logits("validation"))


def _of_logits(run: RunContext, test_NC: Tensor, validation_NC: Tensor | None, adjust: Tau | None = None) -> Tested:
    data = run.data
    held_out = None
    if validation_NC is not None and data.validation is not None:
        held_out = (validation_NC, data.validation.labels)
    chosen = None if adjust is None else settle(adjust, held_out, data.class_counts)
    test = (test_NC, data.test.labels, data.class_counts)
    return Tested(
        logits=test_NC,
        validation=validation_NC,
        adjust=chosen,
        test=evaluate_adjusted(*test, tau=chosen["tau"] if chosen else 0.0),
        test_adjusted=None if is_multi_label(data.test.labels) else evaluate_adjusted(*test),
    )


def _best_on_validation(run: RunContext, student: Trained) -> BestOnValidation | None:
    best = student.fitted.best if student.fitted else None
    if best is None:
        return None
    student.network.model.load_state_dict(best.weights)
    adjust, whose = run.experiment.adjust, f"student, after epoch {best.epoch + 1}"
    tested = _tested(run, student.network, whose, run.data.validation if adjust == AUTO else None, adjust)
    found: BestOnValidation = {"epoch": best.epoch, "validation": best.validation, "test": tested.test}
    return found if tested.adjust is None else {**found, "adjust": tested.adjust}


def _held_out(run: RunContext, student: Tested, teacher: Tested | Trained | StoredTeacher | None) -> Predictions | None:
    """What both networks give for the validation split."""
    if run.data.validation is None or student.validation is None:
        return None
    teacher_NC = teacher.validation if isinstance(teacher, Tested) else None
    if isinstance(teacher, StoredTeacher):  # which has answers for validation, but none for the test
        teacher_NC = teacher.logits("validation")
    return Predictions(student.validation, run.data.validation.labels, teacher_NC)


def _content(
    run: RunContext,
    teacher: Trained | StoredTeacher | None,
    student: Trained,
    taught_by: Tested | None,
    tested: Tested,
    best: BestOnValidation | None,
) -> RunResult:
    assert student.fitted is not None
    data, images, example = run.data, len(run.data.train), sample_inputs(run.data.train, 1)
    network = teacher if isinstance(teacher, Trained) else None
    taught = None
    if teacher is not None:
        described = read_metadata(run.folder.weights("teacher")) if isinstance(teacher, Trained) else teacher.facts
        taught = teacher_posterior(run.experiment, described, run.data)
    asked = teacher.network if isinstance(teacher, Trained) else teacher
    return {
        "schema_version": SCHEMA_VERSION,
        "name": run.experiment.name,
        "seed": run.experiment.seed,
        "method": run.experiment.method_name,
        "class_names": list(data.class_names),
        "class_counts": list(data.class_counts),
        "subset_sha256": data.subset_sha256,
        "notes": [*data.notes, *run.notes],
        "teacher": _of_teacher(teacher, taught_by),
        "student": {**_of_stage(student, tested), "adjust": tested.adjust, "best_on_validation": best},
        "timing": {
            "teacher": _timing(network.fitted, images) if network and network.fitted else None,
            "student": _timing(student.fitted, images),
        },
        "posterior": {"teacher": taught, "student": student_posterior(run.experiment, run.data)},
        "parameters": _by_stage(network, student, lambda stage: count_parameters(stage.network.model)),
        "macs": _by_stage(network, student, lambda stage: count_macs(stage.network.model, example)),
        "deployment": {
            "teacher": None if network is None else deployment_of(run, TEACHER, network.network.model),
            "student": deployment_of(run, STUDENT, student.network.model),
        },
        "identity": {**run.identity, "teacher": teacher_hash(asked)},
        "versions": versions(run.runtime),
        "config": run.experiment.model_dump(mode="json"),
    }


def _of_teacher(teacher: Trained | StoredTeacher | None, tested: Tested | None) -> TeacherResult | None:
    if isinstance(teacher, StoredTeacher):
        test, adjusted = (tested.test, tested.test_adjusted) if tested else (None, None)
        return {"test": test, "test_adjusted": adjusted, "stored": teacher.describe()}
    if teacher is None or tested is None:
        return None
    return cast(TeacherResult, _of_stage(teacher, tested))


def _of_stage(trained: Trained, tested: Tested) -> StageResult:
    found: StageResult = {"test": tested.test}
    if tested.test_adjusted is not None:
        found["test_adjusted"] = tested.test_adjusted
    if trained.fitted is None:
        return found
    return {**found, "weights": "averaged" if trained.fitted.averaged else "last"}


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
    return delta_order(recalls, teacher["per_class_recall"] if teacher else [headline(student)] * len(recalls))
