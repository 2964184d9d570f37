"""What an experiment's words say of its methods: the student's, its teacher's, and those of their classifier stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distail.config.reading import PREVIOUS_EPOCH
from distail.config.schema import Experiment
from distail.data.prepare import PreparedData
from distail.methods.composition import Composition
from distail.methods.context import Requirements
from distail.methods.method import Method
from distail.methods.presets import create_method, read_composition, without_unowned
from distail.outputs import MULTI_LABEL


def method_composition(experiment: Experiment) -> dict[str, Any]:
    """What `create_method` takes: without `adjust`; `teacher: previous_epoch` makes the method its own teacher.

    A method that asks no teacher, such as `ce` in a comparison with one that does, stays as it is.
    """
    return _taught_by_itself(experiment, _without_teacher(experiment))


def teacher_composition(experiment: Experiment) -> dict[str, Any]:
    """What `create_method` takes for a teacher that is trained here, before its classifier stage."""
    assert experiment.teacher is not None
    chosen = experiment.teacher.supervised
    supervised = chosen or read_composition(method_composition(experiment)).teacher_supervised
    return {"name": "ce", "supervised": supervised, **_labels(experiment)}


def classifier_composition(experiment: Experiment, *, of_teacher: bool = False) -> dict[str, Any]:
    """What `create_method` takes for the classifier stage: its choice laid over the method, or a method of its own."""
    training = experiment.teacher_training if of_teacher else experiment.training
    late = training.classifier_stage
    if late is None:
        return teacher_composition(experiment) if of_teacher else method_composition(experiment)
    own = {**late.method, **({} if late.supervised is None else {"supervised": late.supervised})}
    base = _labels(experiment)
    if "name" not in own:
        base = teacher_composition(experiment) if of_teacher else _without_teacher(experiment)
    composition = {**base, **own}
    if not of_teacher:
        composition = _taught_by_itself(experiment, composition)
    return without_unowned(composition, base.keys() - own.keys())


def without_unread_targets(experiment: Experiment) -> Experiment:
    """Without the classifier stage's `targets` and `weights` where the method has no divergence to read them.

    Of several methods that share a training, such as `ce` and `kd`, only some have a teacher.
    """
    late = experiment.training.classifier_stage
    if late is None or late.method.keys() & {"name", "divergence"} or read_method(experiment).entries["divergence"]:
        return experiment
    read = {key: value for key, value in late.method.items() if key not in ("targets", "weights")}
    training = experiment.training.model_copy(update={"classifier_stage": late.model_copy(update={"method": read})})
    return experiment.model_copy(update={"training": training})


def read_method(experiment: Experiment) -> Composition:
    """The parts of the experiment's method, before its classifier stage."""
    return read_composition(method_composition(experiment))


def needs_of(experiment: Experiment) -> Requirements:
    """What the experiment's method, and that of its classifier stage, need of a run."""
    return read_method(experiment).needs | read_composition(classifier_composition(experiment)).needs


def needs_teacher(experiment: Experiment) -> bool:
    """Whether the experiment's method listens to a teacher at all."""
    return needs_of(experiment).teacher


def teacher_features(experiment: Experiment) -> bool:
    """Whether anyone reads the teacher's features: the method, or what the teacher is trained with."""
    own = (
        read_composition(teacher_composition(experiment)).needs
        | read_composition(classifier_composition(experiment, of_teacher=True)).needs
    )
    return needs_of(experiment).teacher_features or own.student_features


def build_method(
    experiment: Experiment, data: PreparedData, student_dim: int | None, teacher_dim: int | None
) -> Method:
    """The experiment's method."""
    return create_method(
        method_composition(experiment),
        class_counts=data.class_counts,
        student_dim=student_dim,
        teacher_dim=teacher_dim,
        samples=data.samples,
    )


def teacher_method(experiment: Experiment, data: PreparedData) -> Method:
    """What the teacher is trained with: `teacher.supervised`, by default what the method's own paper does."""
    return create_method(teacher_composition(experiment), class_counts=data.class_counts, samples=data.samples)


def _without_teacher(experiment: Experiment) -> dict[str, Any]:
    composition = {key: value for key, value in experiment.method.items() if key not in ("adjust", "labels")}
    return composition | _labels(experiment)


def _taught_by_itself(experiment: Experiment, composition: Mapping[str, Any]) -> dict[str, Any]:
    itself = experiment.teacher is not None and experiment.teacher.is_previous_epoch
    if itself and read_composition(composition).needs.teacher:
        return {**composition, "teacher": PREVIOUS_EPOCH}
    return dict(composition)


def _labels(experiment: Experiment) -> dict[str, str]:
    """What a composition says of the labels, where an example may have several classes."""
    return {"labels": MULTI_LABEL} if experiment.data.targets == MULTI_LABEL else {}
