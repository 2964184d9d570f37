"""The two stages of a run: its teacher, trained or loaded, and its student, trained from the teacher's answers.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distail.config.schema import Model
from distail.data.dataset import is_images
from distail.errors import CheckpointError
from distail.json_values import as_mapping
from distail.models import FeatureTap
from distail.models.weights import check_weights, load_weights, read_metadata, save_weights, unused_weights
from distail.runner.checks import teacher_model
from distail.runner.compositions import build_method, needs_of, needs_teacher, teacher_features, teacher_method
from distail.runner.context import STUDENT, TEACHER, RunContext
from distail.runner.identity import changed_teacher
from distail.runner.networks import (
    build_network,
    describe_network,
    load_checkpoint,
    seeded,
    without_weights,
)
from distail.runner.normalization import match_normalization, normalization_notes
from distail.runner.posterior import posterior_of_files, student_posterior, teacher_posterior
from distail.runner.run_folder import RunFolder
from distail.runner.stored_teacher import StoredTeacher, open_stored_teacher, refuse_another_file
from distail.runner.train_network import initial_weights_missing, teacher_hash, teacher_width, train
from distail.runner.trial import look_at_answers, look_at_loaded, look_at_trained, try_fine_tuning, try_training
from distail.training.checkpoint import CheckpointFolder
from distail.training.progress import Reporter
from distail.training.stage import Fitted
from distail.training.step import convert_sync_batch_norm


@dataclass(frozen=True)
class Trained:
    """A network of the run and what its training left; None where it was trained elsewhere."""

    network: FeatureTap
    fitted: Fitted | None


def prepare_teacher(run: RunContext) -> Trained | StoredTeacher | None:
    """The teacher, loaded or trained, its weights in the run's folder; None where the method listens to none."""
    options, broadcast = run.experiment.teacher, run.runtime.processes.broadcast_from_main
    if options is None or options.is_previous_epoch or not needs_teacher(run.experiment):
        return None
    if options.logits is not None:
        return _stored_teacher(run)
    model, stored = teacher_model(run.experiment), run.folder.weights(TEACHER)
    # A run begun with a teacher ends with it, whatever has become of its file since.
    kept = bool(options.files) and broadcast(lambda: _usable(stored, run.reporter))
    built = without_weights(model) if kept or options.checkpoint else model
    run.note(*_overruled(TEACHER, options.model.weights, options.checkpoint))
    network = _untrained(run, TEACHER, built, options.classifier, features=teacher_features(run.experiment))
    fitted = None
    weights: Path | None = None
    if options.files:
        weights = stored if kept else options.checkpoint
        if weights is not None:  # else there are several, which were loaded as they were built
            load_checkpoint(network, weights, run.data, TEACHER)
            match_normalization(network, weights, run.data)
        run.note(*(note for path in options.files for note in unused_weights(path)))
        if kept:
            run.note(*broadcast(lambda: _replaced(network, options.files, run)))
        else:
            broadcast(lambda: _refuse_another(network, options.files, run))
        run.note(*look_at_loaded(network, TEACHER, run.data, run.runtime))
    elif broadcast(lambda: _teacher_checkpoints_missing(run.folder)):
        # Trained again it could be another one (on a GPU it would be), and the student is half way.
        run.reporter.message(f"the teacher's checkpoints are missing; {stored} is used")
        # The output lies where the main process is; from it the others take the weights below.
        broadcast(lambda: load_weights(network.model, stored, what=TEACHER))
    else:
        training = run.experiment.teacher_training
        run.note(*try_training(network, TEACHER, run.data, training.batch_size, run.runtime_for(TEACHER)))
        run.note(*try_fine_tuning(network, TEACHER, model, training, run.data, None))
        method = teacher_method(run.experiment, run.data)
        fitted = train(run, TEACHER, network, None, method, training)
        if fitted.seconds:  # a plan has timed a few steps only
            run.note(*look_at_trained(network, TEACHER, run.data, run.runtime))
    run.runtime.processes.broadcast_parameters(network.model)

    def save() -> None:
        if weights != stored:
            run.require_folder()
            # Loaded from elsewhere it was trained on what its own file says.
            trained_on = None if options.checkpoint is None else read_metadata(options.checkpoint)
            description = describe_network(
                network.model,
                model,
                options.classifier,
                run.data,
                bit_depth=run.experiment.data.bit_depth,
                posterior=posterior_of_files(options.files)
                if options.files
                else teacher_posterior(run.experiment, data=run.data),
                trained_on=trained_on,
            )
            save_weights(network.model, stored, description)

    broadcast(save)
    return Trained(network, fitted)


def _stored_teacher(run: RunContext) -> StoredTeacher:
    """The file of answers, which every process reads for itself."""
    processes = run.runtime.processes
    stored = processes.gather_errors(lambda: open_stored_teacher(run.experiment, run.data))
    run.note(*stored.notes)
    processes.broadcast_from_main(lambda: refuse_another_file(stored, _began_with(run)))
    if processes.broadcast_from_main(lambda: stored.sha256) != stored.sha256:
        raise CheckpointError(f"{str(stored.path)!r} differs between machines; expected the same file on all")
    doubt = "are its rows in the order of these examples, and its columns in that of the classes?"
    some = stored.some_of_training(run.data.train.labels)
    run.note(*look_at_answers(*some, TEACHER, run.data.class_names, doubt))
    return stored


def _began_with(run: RunContext) -> object:
    student = CheckpointFolder(run.folder.checkpoints(STUDENT)).newest_values()
    return as_mapping(student.get("identity")).get("teacher")


def _replaced(teacher: FeatureTap, files: Sequence[Path], run: RunContext) -> list[str]:
    """A sentence where the files that the teacher was loaded from hold another one by now."""
    return [
        f"{' and '.join(map(str, files))} holds {change}: the run goes on with the teacher that it began with. For the "
        "other one choose another output"
        for change in changed_teacher(run.experiment, {"teacher": teacher_hash(teacher)})
    ]


def _refuse_another(teacher: FeatureTap, files: Sequence[Path], run: RunContext) -> None:
    began_with = _began_with(run)
    if began_with is not None and began_with != teacher_hash(teacher):
        raise CheckpointError(
            f"{' and '.join(repr(str(path)) for path in files)} is not the teacher that this run started with; restore "
            "it, or start again with another output"
        )


def _usable(stored: Path, reporter: Reporter) -> bool:
    if not stored.is_file():
        return False
    try:
        check_weights(stored)
    except CheckpointError as error:
        reporter.message(f"{error}; the teacher is read again from teacher.checkpoint")
        return False
    return True


def _teacher_checkpoints_missing(folder: RunFolder) -> bool:
    trained = folder.weights(TEACHER).is_file() and folder.has_stage(STUDENT)
    return trained and not CheckpointFolder(folder.checkpoints(TEACHER)).steps()


def untrained_student(run: RunContext) -> FeatureTap:
    """The student as its training finds it: with new weights, or those that the configuration names.

    Raises:
        ModelError: it cannot learn, which two batches show.
    """
    options = run.experiment.student
    features = needs_of(run.experiment).student_features
    model = options.model if options.checkpoint is None else without_weights(options.model)
    network = _untrained(run, STUDENT, model, options.classifier, features=features)
    run.note(*_overruled(STUDENT, options.model.weights, options.checkpoint))
    if options.checkpoint is not None and options.checkpoint not in initial_weights_missing(run, STUDENT):
        run.note(*unused_weights(options.checkpoint))
        load_checkpoint(network, options.checkpoint, run.data, STUDENT)
        run.note(*normalization_notes(network.model, options.checkpoint, run.data, STUDENT))
    run.note(*try_training(network, STUDENT, run.data, run.experiment.training.batch_size, run.runtime))
    training = run.experiment.training
    run.note(*try_fine_tuning(network, STUDENT, options.model, training, run.data, options.checkpoint))
    return network


def train_student(run: RunContext, network: FeatureTap, teacher: Trained | StoredTeacher | None) -> Trained:
    """Train the student, in place, and store its weights in the run's folder."""
    options, data = run.experiment.student, run.data
    asked = teacher.network if isinstance(teacher, Trained) else teacher
    with seeded(run.experiment.seed, "method"):
        method = build_method(run.experiment, data, network.feature_dim, teacher_width(asked))
    fitted = train(run, STUDENT, network, asked, method, run.experiment.training)
    description = describe_network(
        network.model,
        options.model,
        options.classifier,
        data,
        bit_depth=run.experiment.data.bit_depth,
        posterior=student_posterior(run.experiment, run.data),
    )

    def save() -> None:
        run.require_folder()
        save_weights(network.model, run.folder.weights(STUDENT), description)

    run.runtime.processes.broadcast_from_main(save)
    return Trained(network, fitted)


def _overruled(whose: str, weights: Path | None, checkpoint: Path | None) -> list[str]:
    """A sentence where two files are given to begin with."""
    if weights is None or checkpoint is None:
        return []
    return [f"{whose}.model.weights: {weights} is not used, because all weights are those of {whose}.checkpoint"]


def _untrained(run: RunContext, stage: str, model: Model, classifier: str, *, features: bool) -> FeatureTap:
    runtime = run.runtime
    if model.weights in initial_weights_missing(run, stage):
        model = model.model_copy(update={"weights": None})
    with seeded(run.experiment.seed, f"{run.draws_as(stage)}-weights"):
        tap = build_network(model, classifier, run.data, features=features, tell=run.note)
    if run.experiment.trainer.sync_batch_norm and runtime.processes.size > 1:
        tap.model = convert_sync_batch_norm(tap.model)
    images = is_images(run.data.train)
    layout = torch.channels_last if images and runtime.channels_last else torch.contiguous_format
    return tap.to(runtime.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]
