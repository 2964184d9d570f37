"""The two stages of a run: its teacher, trained or loaded, and its student, trained from the teacher's answers.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from distail.config.schema import Experiment, Model, Training
from distail.data.batches import ImageBatches
from distail.data.prepare import PreparedData
from distail.data.seeding import stream_key
from distail.errors import CheckpointError
from distail.evaluation.metrics import MetricValues, evaluate_predictions
from distail.files import tensors_hash
from distail.json_values import as_mapping
from distail.methods.method import Method
from distail.models import FeatureTap
from distail.models.weights import check_weights, load_weights, read_metadata, save_weights, unused_weights
from distail.runner.checks import (
    build_method,
    needs_of,
    needs_teacher,
    teacher_features,
    teacher_method,
    teacher_model,
)
from distail.runner.networks import (
    build_network,
    describe_network,
    load_checkpoint,
    match_normalization,
    seeded,
    without_weights,
)
from distail.runner.run_folder import RunFolder
from distail.runner.trial import look_at_loaded, try_training
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice
from distail.training.finite import check_logits
from distail.training.history import History
from distail.training.identity import Identity
from distail.training.loop import fit
from distail.training.predict import in_order, predict
from distail.training.progress import Reporter
from distail.training.stage import Fitted, Stage
from distail.training.step import convert_sync_batch_norm, frozen_teacher
from distail.training.teacher_cache import TeacherCache

Fit = Callable[[Stage, CheckpointFolder, History, Reporter, int], Fitted]
TEACHER, STUDENT = "teacher", "student"


@dataclass(frozen=True)
class RunContext:
    """What the stages of a run share."""

    experiment: Experiment
    folder: RunFolder
    data: PreparedData
    runtime: RuntimeDevice
    history: History
    reporter: Reporter
    identity: Identity
    require_folder: Callable[[], None]
    """Refuses where the folder is no longer this run's: called by the main process before it writes."""
    fit: Fit = fit
    """What trains a stage; a plan of a run only times a few steps."""
    notes: list[str] = field(default_factory=list)
    """What is odd about the networks; what is odd about the data is in `data.notes`."""

    def note(self, *sentences: str) -> None:
        """Tell the user once, and keep it for the result."""
        for sentence in sentences:
            if sentence not in self.notes:
                self.notes.append(sentence)
                self.reporter.message(sentence)

    def draws_as(self, stage: str) -> str:
        """The name by which a stage draws its first weights and its order."""
        return self.experiment.role if stage == STUDENT else stage


@dataclass(frozen=True)
class Trained:
    """A network of the run and what its training left; None where it was trained elsewhere."""

    network: FeatureTap
    fitted: Fitted | None


def prepare_teacher(run: RunContext) -> Trained | None:
    """The teacher, loaded or trained, its weights in the run's folder; None where the method listens to none."""
    options, broadcast = run.experiment.teacher, run.runtime.processes.broadcast_from_main
    if options is None or options.is_previous_epoch or not needs_teacher(run.experiment):
        return None
    model, stored = teacher_model(run.experiment), run.folder.weights(TEACHER)
    # A run begun with a teacher ends with it, whatever has become of its file since.
    kept = bool(options.files) and broadcast(lambda: _usable(stored, run.reporter))
    built = without_weights(model) if kept else model
    network = _untrained(run, TEACHER, built, options.classifier, features=teacher_features(run.experiment))
    fitted = None
    weights: Path | None = None
    if options.files:
        weights = stored if kept else options.checkpoint
        if weights is not None:  # else there are several, which were loaded as they were built
            load_checkpoint(network, weights, run.data, TEACHER)
            match_normalization(network, weights, run.data)
        run.note(*(note for path in options.files for note in unused_weights(path)))
        if not kept:
            broadcast(lambda: _refuse_another(network, options.files, run))
        run.note(*look_at_loaded(network, TEACHER, run.data, run.runtime))
    elif broadcast(lambda: _teacher_checkpoints_missing(run.folder)):
        # Trained again it could be another one (on a GPU it would be), and the student is half way.
        run.reporter.message(f"the teacher's checkpoints are gone; {stored} is used as it is")
        # The output lies where the main process is; from it the others take the weights below.
        broadcast(lambda: load_weights(network.model, stored, what=TEACHER))
    else:
        training = run.experiment.teacher_training
        run.note(*try_training(network, TEACHER, run.data, training.batch_size, run.runtime))
        method = teacher_method(run.experiment, run.data.class_counts)
        fitted = _train(run, TEACHER, network, None, method, training)
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
                trained_on=trained_on,
            )
            save_weights(network.model, stored, description)

    broadcast(save)
    return Trained(network, fitted)


def _refuse_another(teacher: FeatureTap, files: Sequence[Path], run: RunContext) -> None:
    student = CheckpointFolder(run.folder.checkpoints(STUDENT)).newest_values()
    began_with = as_mapping(student.get("identity")).get("teacher")
    if began_with is not None and began_with != teacher_hash(teacher):
        raise CheckpointError(
            f"{' and '.join(repr(str(path)) for path in files)} is another teacher than this run began with; put that "
            "one back, or begin anew with another output"
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
    network = _untrained(run, STUDENT, options.model, options.classifier, features=features)
    if options.checkpoint is not None and options.checkpoint not in initial_weights_missing(run, STUDENT):
        run.note(*unused_weights(options.checkpoint))
        load_checkpoint(network, options.checkpoint, run.data, STUDENT)
    run.note(*try_training(network, STUDENT, run.data, run.experiment.training.batch_size, run.runtime))
    return network


def train_student(run: RunContext, network: FeatureTap, teacher: Trained | None) -> Trained:
    """Train the student, in place, and store its weights in the run's folder."""
    options, data = run.experiment.student, run.data
    teacher_network = teacher.network if teacher else None
    with seeded(run.experiment.seed, "method"):
        teacher_dim = teacher_network.feature_dim if teacher_network else None
        method = build_method(run.experiment, data.class_counts, network.feature_dim, teacher_dim)
    fitted = _train(run, STUDENT, network, teacher_network, method, run.experiment.training)
    bit_depth = run.experiment.data.bit_depth
    description = describe_network(network.model, options.model, options.classifier, data, bit_depth=bit_depth)

    def save() -> None:
        run.require_folder()
        save_weights(network.model, run.folder.weights(STUDENT), description)

    run.runtime.processes.broadcast_from_main(save)
    return Trained(network, fitted)


def teacher_hash(teacher: FeatureTap | None) -> str | None:
    """The hash of a teacher's weights, wherever they came from."""
    return None if teacher is None else tensors_hash(teacher.model.state_dict())


def initial_weights_missing(run: RunContext, stage: str) -> list[Path]:
    """The files that a stage began with and that are gone; its checkpoints hold what has become of them."""
    student = run.experiment.student
    begun_with = (
        [student.checkpoint, student.model.weights] if stage == STUDENT else [teacher_model(run.experiment).weights]
    )

    def look() -> list[Path]:
        gone = [path for path in begun_with if path is not None and not path.is_file()]
        return gone if run.folder.has_stage(stage) else []

    return run.runtime.processes.broadcast_from_main(look)


def _untrained(run: RunContext, stage: str, model: Model, classifier: str, *, features: bool) -> FeatureTap:
    runtime = run.runtime
    if model.weights in initial_weights_missing(run, stage):
        model = model.model_copy(update={"weights": None})
    with seeded(run.experiment.seed, f"{run.draws_as(stage)}-weights"):
        tap = build_network(model, classifier, run.data, features=features)
    if run.experiment.trainer.sync_batch_norm and runtime.processes.size > 1:
        tap.model = convert_sync_batch_norm(tap.model)
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return tap.to(runtime.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def _train(
    run: RunContext, name: str, network: FeatureTap, teacher: FeatureTap | None, method: Method, training: Training
) -> Fitted:
    """Train one network in place; this is where an experiment becomes a `Stage` of the loop."""
    experiment, data, runtime = run.experiment, run.data, run.runtime
    seed = int(stream_key(run.draws_as(name), experiment.seed)) >> 1
    views = experiment.teacher.views if teacher and experiment.teacher else 0
    if training.mix and training.mix.labels == "distillation_only" and not teacher:
        training = training.model_copy(update={"mix": None})  # there is nothing that mixed images could carry
    if training.ema_decay is not None:
        run.note(f"the {name}'s figures are those of its averaged weights (training.ema_decay: {training.ema_decay:g})")
    batches = ImageBatches(
        data.train,
        batch_size=training.batch_size,
        mean=data.mean,
        std=data.std,
        augment=experiment.data.augment,
        sampler=experiment.data.sampler,
        num_classes=len(data.class_names),
        seed=seed,
        views=views,
        mix=training.mix,
        device=runtime.device,
        channels_last=runtime.channels_last,
        rank=runtime.processes.rank,
        world_size=runtime.processes.size,
    )
    live_teacher = frozen_teacher(teacher, runtime) if teacher else None
    cache = None
    if live_teacher and views:
        cache = TeacherCache(
            live_teacher,
            batches,
            runtime,
            features=method.needs.teacher_features,
            limit_mb=experiment.trainer.cache_limit_mb,
            folder=run.folder.path,
        )
    missing = initial_weights_missing(run, name)

    def validate(tap: FeatureTap) -> MetricValues:
        assert data.validation is not None
        logits_NC = predict(tap, data.validation, data.mean, data.std, runtime)
        check_logits(logits_NC, "validation")
        return evaluate_predictions(logits_NC, data.validation.labels, data.class_counts)

    def prepare() -> None:
        if missing:
            raise CheckpointError(
                f"{name}: no checkpoint is left to go on from, and to begin anew {str(missing[0])!r} is missing"
            )
        if method.needs.class_means:
            assert live_teacher is not None
            shares = in_order(data.train, data.mean, data.std, runtime)
            method.prepare((live_teacher(batch), batch.labels) for batch in shares if len(batch.labels))

    stage = Stage(
        name=name,
        student=network,
        teacher=cache or live_teacher,
        method=method.to(runtime.device),
        batches=batches,
        validate=validate if data.validation else None,
        training=training,
        runtime=runtime,
        seed=seed,
        compile=experiment.trainer.compile,
        identity={**run.identity, "teacher": teacher_hash(teacher)},
        prepare=prepare,
        fill=cache.fill if cache else None,
    )
    checkpoints = CheckpointFolder(run.folder.checkpoints(name), run.reporter.message, run.require_folder)
    return run.fit(stage, checkpoints, run.history, run.reporter, experiment.trainer.checkpoint_every_steps)
