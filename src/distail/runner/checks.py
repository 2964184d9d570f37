"""Everything that can be known to be wrong before images are read, and what an experiment's words stand for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distail.config.data import Folds
from distail.config.problems import overlaps
from distail.config.reading import ENSEMBLE, PREVIOUS_EPOCH
from distail.config.schema import SAME, Experiment, Model, Trainer, WrongExperiment
from distail.config.section import AUTO
from distail.data.class_order import check_class_order
from distail.data.dataset import Examples
from distail.data.image_inputs import check_augment
from distail.data.mixing import check_mix
from distail.data.sources import check_name, check_streams, check_targets, check_validation
from distail.errors import ConfigError, DataError, MethodError, Problems, problems_in
from distail.methods.context import Requirements
from distail.methods.memory_bank import memory_megabytes
from distail.methods.presets import check_method, read_composition
from distail.models import check_model
from distail.models.catalog import builder_of
from distail.models.resnet import DEFAULT_SHORTCUT
from distail.runner.compositions import (
    classifier_composition,
    method_composition,
    needs_of,
    read_method,
    teacher_composition,
)
from distail.runner.file_checks import check_weight_files
from distail.runner.label_checks import label_problems
from distail.runner.stored_teacher import stored_teacher_problems
from distail.torch_utils import kept_random_state
from distail.training.device import select_device
from distail.training.distributed import SINGLE_PROCESS, Processes
from distail.training.trackers import tracker_problems


def read_experiment(config: Experiment | Mapping[str, Any] | str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Whatever describes an experiment, validated.

    Raises:
        ConfigError: all problems with its keys, and with them what `check` finds in the rest.
    """
    try:
        if isinstance(config, Experiment):
            return config
        if isinstance(config, Mapping):
            return Experiment.from_mapping(config)
        return Experiment.from_yaml(config, overrides)
    except WrongExperiment as error:
        if error.rest is None:
            raise
        # A default that stands in for what is wrong was nobody's choice.
        wrong = [each.key for each in error.wrong]
        found = [*problems_of(error.rest), *_missing_data(error.rest)]
        more = [each for each in found if not overlaps(each.partition(":")[0], wrong)]
        raise ConfigError(problems_in(error.where, [*error.problems, *more])) from None


def check(experiment: Experiment, processes: Processes = SINGLE_PROCESS) -> None:
    """Everything that can be known to be wrong before images are read.

    Raises:
        ConfigError: all problems with methods, networks and files, listed.
        DataError: nothing is wrong but that there are no data.
    """
    problems, missing = problems_of(experiment, processes), _missing_data(experiment)
    if problems:
        raise ConfigError(problems_in(experiment.name, [*problems, *missing]))
    if missing:
        raise DataError(problems_in(experiment.name, missing))


def problems_of(experiment: Experiment, processes: Processes = SINGLE_PROCESS) -> list[str]:
    """What `check` raises, one string a problem, each beginning with the key it is about."""
    problems = Problems()
    problems.attempt(lambda: check_name(experiment.data.name), "data.name")
    problems.attempt(lambda: check_streams(experiment.data), "data.stream")
    problems.attempt(lambda: check_validation(experiment.data))
    problems.attempt(lambda: check_targets(experiment.data))
    problems.add(*label_problems(experiment))
    problems.attempt(lambda: check_class_order(experiment.data.class_order), "data.class_order")
    _check_networks_and_methods(experiment, problems)
    _check_mix(experiment, problems)
    _check_trainer(experiment.trainer, processes, problems)
    check_weight_files(experiment, problems)
    if experiment.adjust == AUTO and not experiment.data.validation:
        problems.add(
            "method.adjust: auto chooses on a validation split, but data.validation is 0, and the test set must not "
            "choose; give one, such as data.validation=0.1, or a number, such as method.adjust=1"
        )
    validation = experiment.data.validation
    if isinstance(validation, Folds) and validation.fold is None:
        problems.add(
            f"data.validation: {{folds: {validation.folds}}} is for `distail compare` and `distail search`, which "
            "train a run for each fold; one run holds out one of them, such as data.validation.fold=0, or a share, "
            "such as data.validation=0.1"
        )
    return problems.found


def _missing_data(experiment: Experiment) -> list[str]:
    """Where data.root leads nowhere: for a run that reads it here, which a comparison need not."""
    root = experiment.data.root
    if root is None or root.exists():
        return []
    return [f"data.root: {str(root)!r} does not exist (current directory {Path.cwd()})"]


def _check_networks_and_methods(experiment: Experiment, problems: Problems) -> None:
    student, teacher = experiment.student, experiment.teacher
    problems.attempt(lambda: _look_up(student.model, student.classifier), "student.model")
    needs = problems.attempt(lambda: _checked_needs(method_composition(experiment)), "method")
    late = None
    whose = f"method {experiment.method_name!r}"
    if needs is not None and experiment.training.classifier_stage is not None:
        late = problems.attempt(lambda: _checked_needs(classifier_composition(experiment)), "training.classifier_stage")
        if late is not None and not needs.teacher:
            name = classifier_composition(experiment).get("name", experiment.method_name)
            whose = f"the classifier stage's method {name!r}"
        needs |= late or Requirements()
    if needs is not None:
        problems.add(*_other_classifier("student", needs, student.model, student.classifier))
    if needs is not None and needs.teacher and teacher is None:
        problems.add(
            f"teacher: {whose} needs a teacher; give one, such as "
            "teacher: {model: same}, or teacher: {model: resnet32, checkpoint: teacher.safetensors}"
        )
    if teacher is None:
        return
    if teacher.is_previous_epoch:
        if teacher.stores_views:
            problems.add(
                f"teacher.views: {teacher.views}, but teacher: {PREVIOUS_EPOCH} has no network whose outputs could be "
                "stored; expected 0"
            )
        return
    if teacher.logits is not None:
        stages = [method_composition] if needs is not None else []
        stages += [classifier_composition] if late is not None else []
        problems.add(*stored_teacher_problems(experiment, [read_composition(each(experiment)) for each in stages]))
        return
    model = teacher_model(experiment)
    if model.name == ENSEMBLE:
        _check_members(model, needs, teacher.classifier, problems)
    else:
        problems.attempt(lambda: _look_up(model, teacher.classifier), "teacher.model")
    # Without a choice of its own the method decides, and what is wrong with that has been said.
    if needs is not None or teacher.supervised is not None:
        own_needs = problems.attempt(lambda: _checked_needs(teacher_composition(experiment)), "teacher.supervised")
        if own_needs is None or teacher.files:
            return
        late = problems.attempt(
            lambda: _checked_needs(classifier_composition(experiment, of_teacher=True)),
            "teacher.training.classifier_stage",
        )
        if late is not None and late.teacher:
            problems.add("teacher.training.classifier_stage: its method needs a teacher, and the teacher has none")
        own_needs |= late or Requirements()
        problems.add(*_other_classifier("teacher", own_needs, model, teacher.classifier))


def _check_members(model: Model, needs: Requirements | None, classifier: str, problems: Problems) -> None:
    if needs is not None and needs.teacher_features:
        problems.add("teacher: an ensemble has no common features, which this method reads; expected one network")
    if not model.members:
        problems.add("teacher: an empty list; expected networks with their checkpoints, or one network")
    for place, member in enumerate(model.members, start=1):
        problems.attempt(partial(_look_up, member, classifier), f"teacher, number {place}")
        if member.weights is None:
            problems.add(
                f"teacher, number {place}: no checkpoint; expected {{model: {member.name}, checkpoint: FILE}}. Train "
                "each teacher of an ensemble beforehand in a run of its own (role=teacher); its student.safetensors is "
                "the checkpoint"
            )


def _check_mix(experiment: Experiment, problems: Problems) -> None:
    """Of the method alone: its classifier stage mixes nothing."""
    mix, teacher = experiment.training.mix, experiment.teacher
    if mix is None or not mix.share:
        return
    try:
        composition = read_method(experiment)
    except MethodError:  # which has been told
        return
    if composition.needs.memory:
        problems.add(
            f"training.mix: {mix.name}, but teacher: {PREVIOUS_EPOCH} stores the student's prediction for each image, "
            "and a mixed one is not that image; leave training.mix out, or choose a teacher"
        )
    if teacher is None or not composition.needs.teacher:
        return
    if teacher.logits is not None:
        problems.add(
            f"training.mix: {mix.name}, but teacher.logits has predictions for unmixed images only; leave "
            "training.mix out, or choose a teacher with a network"
        )
    elif teacher.stores_views:
        problems.add(
            f"training.mix: {mix.name}, but with teacher.views: {teacher.views} the teacher predicts the images before "
            "they are mixed; expected teacher.views: 0"
        )
    elif mix.labels == "distillation_only" and "distillation" not in composition.terms:
        problems.add(
            "training.mix.labels: distillation_only, but the method has no distillation term "
            f"({', '.join(composition.terms)}); expected 'mixed'"
        )


def _check_trainer(trainer: Trainer, processes: Processes, problems: Problems) -> None:
    problems.add(*(f"trainer.trackers: {problem}" for problem in tracker_problems(trainer.trackers)))
    runtime = problems.attempt(lambda: select_device(trainer.device, "fp32", 1, processes), "trainer.device")
    if trainer.sync_batch_norm and runtime is not None and runtime.device.type != "cuda":
        problems.add(
            f"trainer.sync_batch_norm: torch offers it on GPUs only, and this runs on {runtime.device.type!r}; "
            "leave it false, or train on GPUs"
        )


def _checked_needs(composition: Mapping[str, Any]) -> Requirements:
    check_method(composition)
    return read_composition(composition).needs


def _other_classifier(section: str, needs: Requirements, model: Model, classifier: str) -> list[str]:
    # How a network of the user's own ends is not known.
    if not needs.cosine_classifier or classifier == "cosine" or builder_of(model.name) is None:
        return []
    return [f"{section}.classifier: {classifier!r}, but ldam subtracts margins from cosines; expected 'cosine'"]


def check_memory(experiment: Experiment, class_counts: Sequence[int]) -> None:
    """Refuse a method whose memory of every sample would be larger than `trainer.cache_limit_mb`.

    Raises:
        ConfigError: it would; what it takes and the limit are said.
    """
    if not needs_of(experiment).memory:
        return
    num_samples = experiment.method.get("num_samples") or sum(class_counts)
    size, limit = memory_megabytes(num_samples, len(class_counts)), experiment.trainer.cache_limit_mb
    if size > limit:
        raise ConfigError(
            f"teacher: {PREVIOUS_EPOCH} remembers {len(class_counts):,} probabilities of each of {num_samples:,} "
            f"images: {math.ceil(size):,} MB in every process, more than trainer.cache_limit_mb: {limit}; raise it "
            "where there is room, or choose a teacher"
        )


def check_fits_data(experiment: Experiment, data: Examples) -> None:
    """Refuse to mix what cannot be mixed, and to erase whole images.

    Raises:
        DataError: boxes of what has no pixels, or means of what is no number; a cutout as large as the images.
    """
    check_augment(experiment.data.augment, data)
    mixes = {"training.mix": experiment.training.mix}
    if experiment.teacher is not None and experiment.teacher.trained_here and "mix" in experiment.teacher.training:
        mixes["teacher.training.mix"] = experiment.teacher_training.mix
    for key, mix in mixes.items():
        if mix is not None and mix.share:
            check_mix(mix, data, key)


def teacher_model(experiment: Experiment) -> Model:
    """The teacher's network; `same` is the student's own architecture."""
    assert experiment.teacher is not None
    model, same = experiment.teacher.model, experiment.student.model
    if model.members:
        members = tuple(
            same.model_copy(update={"weights": each.weights}) if each.name == SAME else each for each in model.members
        )
        return model.model_copy(update={"members": members})
    return same if model.name == SAME else model


def _look_up(model: Model, classifier: str) -> None:
    # What is built only to be looked at draws its weights; the caller's random numbers stay as they were.
    with kept_random_state():
        check_model(model.name, shortcut=model.shortcut or DEFAULT_SHORTCUT, classifier=classifier, **model.options)
