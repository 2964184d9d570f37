"""One network trained, from an experiment: the batches, the teacher and the method become a `Stage` of the loop.

Shapes: N images, C classes.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from distail.config.training import Freeze, Training
from distail.data.batches import TrainingBatches, usual_sizes
from distail.data.input_sources import noise_inputs
from distail.data.seeding import stream_key
from distail.errors import CheckpointError
from distail.evaluation.adjustment import evaluate_adjusted, settle
from distail.evaluation.metrics import MetricValues
from distail.files import tensors_hash
from distail.methods.method import Method
from distail.methods.presets import create_method
from distail.models import FeatureTap
from distail.runner.checks import teacher_model
from distail.runner.compositions import classifier_composition
from distail.runner.context import STUDENT, TEACHER, TEACHER_INFERENCE, RunContext
from distail.runner.networks import classifier_paths, seeded
from distail.runner.stored_teacher import StoredTeacher
from distail.runner.views import shared_file, stored_views
from distail.training.averaging import covered_steps
from distail.training.checkpoint import CheckpointFolder
from distail.training.cuda_graph import can_record
from distail.training.finite import check_logits
from distail.training.frozen_teacher import Teacher, frozen_teacher
from distail.training.passes import images_a_pass, is_one_pass
from distail.training.predict import evaluation_batch_size, in_order, predict
from distail.training.stage import Fitted, Stage, Validate
from distail.training.teacher_cache import TeacherCache

Asked = FeatureTap | StoredTeacher
"""What answers for the teacher: a network, or a file."""


def teacher_hash(teacher: Asked | None) -> str | None:
    """The hash of a teacher's weights, wherever they came from, or of the file of its answers."""
    if isinstance(teacher, StoredTeacher):
        return teacher.sha256
    return None if teacher is None else tensors_hash(teacher.model.state_dict())


def teacher_width(teacher: Asked | None) -> int | None:
    """The width of a teacher's features; None where it has none."""
    return teacher.feature_dim if isinstance(teacher, FeatureTap) else None


def stage_seed(draws_as: str, seed: int) -> int:
    """What order, crops and flips of a stage are drawn from."""
    return int(stream_key(draws_as, seed)) >> 1


def initial_weights_missing(run: RunContext, stage: str) -> list[Path]:
    """The files that a stage began with and that are gone; its checkpoints hold what has become of them."""
    student = run.experiment.student
    begun_with = (
        [student.checkpoint or student.model.weights] if stage == STUDENT else [teacher_model(run.experiment).weights]
    )

    def look() -> list[Path]:
        gone = [path for path in begun_with if path is not None and not path.is_file()]
        return gone if run.folder.has_stage(stage) else []

    return run.runtime.processes.broadcast_from_main(look)


def train(
    run: RunContext, name: str, network: FeatureTap, teacher: Asked | None, method: Method, training: Training
) -> Fitted:
    """Train one network in place, to the last epoch; the last ones may be those of its classifier alone."""
    late = training.classifier_stage
    if late is None:
        return _fit(run, name, network, teacher, method, training)
    early, early_method = training.model_copy(update={"epochs": training.backbone_epochs}), method
    fitted = _fit(run, name, network, teacher, method, early, later_epochs=late.epochs)
    frozen = Freeze(name="backbone")
    changes = {"epochs": late.epochs, "schedule": late.schedule, "mix": None, "freeze": frozen}
    if late.learning_rate is not None:
        changes["learning_rate"] = late.learning_rate
    with seeded(run.experiment.seed, f"{run.draws_as(name)}-classifier-method"):
        method = create_method(
            classifier_composition(run.experiment, of_teacher=name == TEACHER),
            class_counts=run.data.class_counts,
            samples=run.data.samples,
            student_dim=network.feature_dim,
            teacher_dim=teacher_width(teacher),
        )
    _keep_learned_weights(early_method, method)
    if method.needs.memory and early_method.needs.memory:
        method.load_memory_state(early_method.memory_state())
    elif method.needs.memory:  # else it would warn that it remembers nothing of the epochs before
        method.begin_epoch(0, training.epochs)
    return _fit(run, name, network, teacher, method, training.model_copy(update=changes), earlier=fitted)


def _fit(
    run: RunContext,
    name: str,
    network: FeatureTap,
    teacher: Asked | None,
    method: Method,
    training: Training,
    *,
    earlier: Fitted | None = None,
    later_epochs: int = 0,
) -> Fitted:
    """This is where an experiment becomes a `Stage` of the loop; after an `earlier` one, of the classifier alone."""
    experiment, data, runtime = run.experiment, run.data, run.runtime_for(name)
    late = training.classifier_stage if earlier else None
    seed = stage_seed(run.draws_as(name) + ("-classifier" if earlier else ""), experiment.seed)
    identity = {**run.identity, "teacher": teacher_hash(teacher)}
    teacher = teacher if method.needs.teacher else None
    stored = teacher if isinstance(teacher, StoredTeacher) else None
    views = stored_views(experiment.teacher.views, training.epochs) if teacher and experiment.teacher else 0
    if training.mix and training.mix.labels == "distillation_only" and not teacher:
        if name == STUDENT and training.mix.share:
            run.note(
                "training.mix: nothing is mixed, since with labels: distillation_only mixed images carry the "
                "distillation alone, and this method has no teacher; for mixed labels training.mix.labels=mixed"
            )
        training = training.model_copy(update={"mix": None})
    batches = TrainingBatches(
        data.train,
        batch_size=training.batch_size,
        mean=data.mean,
        std=data.std,
        augment=experiment.data.augment,
        sampler=(late.sampler if late else None) or experiment.data.sampler,
        num_classes=len(data.class_names),
        seed=seed,
        views=stored.views if stored else views,
        view_seed=stored.matched.view_seed if stored else None,
        mix=training.mix,
        device=runtime.device,
        channels_last=runtime.channels_last,
        rank=runtime.processes.rank,
        world_size=runtime.processes.size,
    )
    if training.ema_decay is not None and not later_epochs:  # of two averages the second is measured
        steps, training_of = training.epochs * batches.steps_per_epoch, "a classifier stage" if late else "a training"
        run.note(_of_averaged_weights(name, training.ema_decay, steps, training_of))
    live_teacher = _frozen(run, teacher, training, views) if isinstance(teacher, FeatureTap) else None
    cache = None
    if live_teacher and views:
        cache = TeacherCache(
            live_teacher,
            batches,
            run.runtime_for(TEACHER_INFERENCE),
            features=method.needs.teacher_features,
            limit_mb=experiment.trainer.cache_limit_mb,
            folder=run.folder.path,
            shared=shared_file(run, batches, identity, features=method.needs.teacher_features),
        )
    missing = initial_weights_missing(run, name) if earlier is None else []

    def prepare() -> None:
        if missing:
            raise CheckpointError(
                f"{name}: no checkpoint is left to resume from, and to start again {str(missing[0])!r} is missing"
            )
        if method.needs.class_means:
            assert live_teacher is not None
            shares = in_order(data.train, data.mean, data.std, runtime)
            method.prepare((live_teacher(batch), batch.labels) for batch in shares if len(batch.labels))

    stage = Stage(
        name=name,
        student=network,
        teacher=stored.teacher(runtime.device) if stored else cache or live_teacher,
        method=method.to(runtime.device),
        batches=batches,
        validate=_validation(run, name),
        training=training,
        runtime=runtime,
        seed=seed,
        compile=experiment.trainer.compile,
        cuda_graph=_recorded(run, network, method) and not method.needs.memory,
        identity=identity,
        prepare=prepare,
        fill=cache.fill if cache else None,
        earlier=earlier,
        later_epochs=later_epochs,
        classifiers=classifier_paths(network, data) if training.frozen_epochs or training.rates_by_layer else (),
        frozen_epochs=training.frozen_epochs,
    )
    checkpoints = CheckpointFolder(run.folder.checkpoints(stage.title), run.reporter.message, run.require_folder)
    return run.fit(stage, checkpoints, run.history, run.reporter, experiment.trainer.checkpoint_every_steps)


def _keep_learned_weights(before: Method, method: Method) -> None:
    """What an entry of both methods has learned, such as the second head of `ipwd`, which weighs samples from now on.

    A projector of features would be another matter: those of the frozen backbone have nothing to learn from it.
    """
    learned, own = before.sample_weights, method.sample_weights
    if learned is None or own is None or type(learned) is not type(own):
        return
    state = learned.state_dict()
    if {name: tensor.shape for name, tensor in own.state_dict().items()} == {n: t.shape for n, t in state.items()}:
        own.load_state_dict(state)


def _of_averaged_weights(name: str, decay: float, steps: int, training_of: str) -> str:
    """What is measured, and that an average over much of a short training is behind what was learned last."""
    said = f"the {name}'s metrics are those of its averaged weights (training.ema_decay: {decay:g})"
    covered = covered_steps(decay)
    if covered <= steps / 4:
        return said
    return (
        f"{said}, which cover about {covered:,} steps of {training_of} of {steps:,}, early ones among them, and may "
        "be worse than the last weights; a smaller ema_decay averages fewer"
    )


def _frozen(run: RunContext, teacher: FeatureTap, training: Training, views: int) -> Teacher:
    """The network as it answers in training: each batch, or beforehand all stored views."""
    train, runtime = run.data.train, run.runtime_for(TEACHER_INFERENCE)
    size = evaluation_batch_size(train.input_shape) if views else images_a_pass(training, runtime.processes)
    most = size if run.experiment.trainer.compile else None
    recorded = not views and is_one_pass(training, runtime.processes) and _recorded(run, teacher)
    sizes = usual_sizes(len(train), training.batch_size) if recorded else ()
    tell = run.reporter.message
    return frozen_teacher(teacher, runtime, most, graph_sizes=sizes, tell=tell, examples=noise_inputs(train, 4))


def _recorded(run: RunContext, *modules: nn.Module) -> bool:
    """Whether what these do on a GPU is recorded."""
    trainer = run.experiment.trainer
    return can_record(*modules) and not trainer.compile if trainer.cuda_graphs == "auto" else trainer.cuda_graphs


def _validation(run: RunContext, name: str) -> Validate | None:
    """What judges a network after an epoch; None without images for it."""
    data, adjust, runtime = run.data, run.experiment.adjust, run.runtime_for(name)
    held_out = data.validation
    if not held_out:
        return None

    def validate(tap: FeatureTap) -> MetricValues:
        what, tell = f"{name}: validation", run.reporter.message
        logits_NC = predict(tap, held_out, data.mean, data.std, runtime, tell=tell, what=what)
        check_logits(logits_NC, "validation")
        tau = 0.0
        if name == STUDENT and adjust is not None:
            # The best epoch, or the best point of a grid, is the best of what will be tested.
            tau = settle(adjust, (logits_NC, held_out.labels), data.class_counts)["tau"]
        return evaluate_adjusted(logits_NC, held_out.labels, data.class_counts, tau)

    return validate
