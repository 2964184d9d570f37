"""What is suspicious in a configuration, though it can be run: parts that do not fit, few epochs, few images."""

from __future__ import annotations

from distail.config.reading import PREVIOUS_EPOCH
from distail.config.schema import Data, Experiment, Schedule, Training
from distail.config.section import AUTO, Section
from distail.data.batches import FEWEST_A_RANK
from distail.data.image_inputs import augment_notes
from distail.data.mixing import images_mixed
from distail.data.prepare import PreparedData
from distail.errors import counted, some_of
from distail.evaluation.adjustment import chosen_on_few
from distail.methods.context import Progress
from distail.methods.presets import read_composition
from distail.runner.compositions import classifier_composition, needs_of, read_method
from distail.runner.posterior import posterior_notes


def training_notes(experiment: Experiment, data: PreparedData) -> list[str]:
    """Sentences for the user: of posteriors, of augmentation, of the training of student and teacher, and of tau."""
    equal = min(data.class_counts) == max(data.class_counts)  # the class priors and equal ones are then the same
    notes = [*([] if equal else posterior_notes(experiment, data)), *augment_notes(experiment.data.augment)]
    if experiment.data.imbalance_factor is None and experiment.data.profile != _default(Data, "profile"):
        notes.append(
            f"data.profile: {experiment.data.profile}, but without data.imbalance_factor no long tail is made: the "
            "data are used as they are"
        )
    notes += _of_training("training", experiment.training)
    teacher, needs = experiment.teacher, needs_of(experiment)
    if teacher is not None and teacher.trained_here and teacher.training and needs.teacher:
        notes += _of_training("teacher.training", experiment.teacher_training)
    if teacher is not None and teacher.is_previous_epoch:
        unused = [name for name in ("training", "supervised") if getattr(teacher, name)]
        notes += [f"teacher.{name}: not used, since {PREVIOUS_EPOCH} is not trained apart" for name in unused]
    if teacher is not None and not teacher.is_previous_epoch and needs.memory and not needs.teacher:
        notes.append(f"teacher: not used, since method.teacher: {PREVIOUS_EPOCH} makes the student its own teacher")
    notes += _never_reached(experiment)
    if needs.memory and _remembering_epochs(experiment) < 2:
        notes.append(
            f"teacher: {PREVIOUS_EPOCH} has nothing to say in the first epoch that asks it, and here no other follows: "
            "nothing is distilled; expected more epochs"
        )
    if experiment.adjust == AUTO and data.validation is not None:
        told = chosen_on_few(data.validation.labels, data.class_counts)
        notes += [f"method.adjust: {AUTO}: {sentence}" for sentence in told]
    return notes


def _never_reached(experiment: Experiment) -> list[str]:
    """What of the method begins after a share of training that no epoch of it reaches."""
    training, notes = experiment.training, []
    late = read_composition(classifier_composition(experiment)).beginnings
    for entry, (key, share) in read_method(experiment).beginnings.items():
        last = training.epochs if entry in late else training.backbone_epochs
        if share < 1 and not Progress(last - 1, training.epochs).reached(share):
            notes.append(
                f"{entry}: {key} is {share:g} of the training, and none of its epochs (the first {last} of "
                f"{training.epochs}) begins so late: what is deferred never begins; expected a smaller {key}, or more "
                "epochs"
            )
    return notes


def _remembering_epochs(experiment: Experiment) -> int:
    """The epochs whose method remembers what the student says."""
    training = experiment.training
    late = training.classifier_stage
    of_late = late is not None and read_composition(classifier_composition(experiment)).needs.memory
    before = training.backbone_epochs if read_method(experiment).needs.memory else 0
    return before + (late.epochs if late is not None and of_late else 0)


def _of_training(key: str, training: Training) -> list[str]:
    notes, late = _of_schedule(key, training.schedule, training.backbone_epochs), training.classifier_stage
    if late is not None:
        notes += _of_schedule(f"{key}.classifier_stage", late.schedule, late.epochs)
        if late.supervised is not None and "supervised" in late.method:
            notes.append(
                f"{key}.classifier_stage.method.supervised: not used, since {key}.classifier_stage.supervised is"
            )
    if training.frozen_epochs >= training.backbone_epochs and training.rates_by_layer:
        notes += [
            f"{key}.{name}: not used, since {key}.freeze leaves nothing but the classifier to train"
            for name in ("backbone_learning_rate_factor", "layer_decay")
            if getattr(training, name) != _default(Training, name)
        ]
    mix = training.mix
    if mix is not None and mix.share > 0 and images_mixed(mix, training.batch_size) == 0:
        notes.append(f"{key}.mix.share: {mix.share:g} of a batch of {training.batch_size} is no image")
    if training.optimizer != "sgd":
        unused = [name for name in ("momentum", "nesterov") if getattr(training, name) != _default(Training, name)]
        notes += [f"{key}.{name}: not used, since only sgd has it, and the optimizer is adamw" for name in unused]
    most = max(1, training.batch_size // FEWEST_A_RANK)
    if training.accumulation_steps > most:
        notes.append(
            f"{key}.accumulation_steps: {training.accumulation_steps}, but a batch of {training.batch_size} has at "
            f"most {most} parts of {FEWEST_A_RANK} images, the fewest from which batch normalization can learn"
        )
    return notes


def _default(section: type[Section], name: str) -> object:
    return section.model_fields[name].default


def _of_schedule(key: str, schedule: Schedule, epochs: int) -> list[str]:
    notes = [
        f"{key}.schedule.{name}: not used, since only {owner} has it, and the schedule is {schedule.name}"
        for name, owner in (("milestones", "step"), ("rise", "one-cycle"))
        if schedule.name != owner and getattr(schedule, name) != _default(Schedule, name)
    ]
    if "name" not in schedule.model_fields_set:
        notes.append(
            f"{key}.schedule.name: not given, so that the learning rate stays constant, where it would be cosine "
            "without a schedule; name it: a later version will require it"
        )
    late = [f"{milestone:g}" for milestone in schedule.milestones if milestone >= epochs]
    if schedule.name == "step" and late:
        notes.append(
            f"{key}.schedule.milestones: {some_of(late)} of {counted(epochs, 'epoch')}, so that the learning rate does "
            "not fall there; expected fewer than the epochs"
        )
    if schedule.warmup_epochs >= epochs:
        notes.append(
            f"{key}.schedule.warmup_epochs: {schedule.warmup_epochs:g} of {counted(epochs, 'epoch')}, so that the "
            "training ends while the learning rate still rises; expected fewer than the epochs"
        )
    elif schedule.warmup_epochs and schedule.name == "one-cycle":
        notes.append(
            f"{key}.schedule.warmup_epochs: {schedule.warmup_epochs:g}, but one-cycle has a warm-up of its own (rise: "
            f"{schedule.rise:g}), so that the learning rate jumps where the first ends; expected 0"
        )
    return notes
