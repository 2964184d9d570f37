"""What a stage of an experiment trains on, listens to and is measured by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distail.config import Experiment, Training
from distail.data.batches import ImageBatches
from distail.data.prepare import PreparedData
from distail.data.seeding import stream_key
from distail.evaluation.metrics import evaluate_predictions
from distail.models import FeatureTap
from distail.objective.method import Method
from distail.training.finite import check_logits
from distail.training.machine import Machine
from distail.training.predict import in_order, predict
from distail.training.stage import Stage
from distail.training.step import frozen
from distail.training.teacher_cache import TeacherCache


def build_stage(
    experiment: Experiment,
    name: str,
    network: FeatureTap,
    teacher: FeatureTap | None,
    method: Method,
    training: Training,
    data: PreparedData,
    machine: Machine,
    folder: Path,
) -> Stage:
    """The stage `name` (teacher or student) of an experiment; what it stores goes below `folder`."""
    seed = int(stream_key(name, experiment.seed)) >> 1
    stored_views = experiment.teacher.views if teacher and experiment.teacher else 0
    batches = ImageBatches(
        data.train,
        batch_size=training.batch_size,
        mean=data.mean,
        std=data.std,
        augment=experiment.data.augment,
        sampler=experiment.data.sampler,
        num_classes=len(data.class_names),
        seed=seed,
        views=stored_views,
        device=machine.device,
        channels_last=machine.channels_last,
        rank=machine.rank,
        world_size=machine.world_size,
    )
    listen = frozen(teacher, machine) if teacher else None

    def validate(tap: FeatureTap) -> dict[str, Any]:
        assert data.validation is not None
        logits = predict(tap, data.validation, data.mean, data.std, machine)
        check_logits(logits, "validation")
        return evaluate_predictions(logits, data.validation.labels, data.class_counts)

    def prepare() -> None:
        assert listen is not None
        shares = in_order(data.train, data.mean, data.std, machine)
        method.prepare((listen(batch), batch.labels) for batch in shares if len(batch.labels))

    # Before the method goes to its device, which need not hold what other processes remember.
    method.split_memory(machine.rank, machine.world_size)
    cache = None
    if listen and stored_views:
        cache = TeacherCache(
            listen,
            batches,
            machine,
            features=method.needs.teacher_features,
            limit_mb=experiment.trainer.cache_limit_mb,
            folder=folder,
        )
    return Stage(
        name=name,
        student=network,
        teacher=cache or listen,
        method=method.to(machine.device),
        batches=batches,
        validate=validate if data.validation else None,
        training=training,
        machine=machine,
        seed=seed,
        compile=experiment.trainer.compile,
        data_sha256=data.subset_sha256,
        prepare=prepare if method.needs.class_means else None,
        fill=cache.fill if cache else None,
    )
