"""A run's networks: built to fit the data, described where their weights are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from distail.config.schema import Experiment, Model, Training
from distail.data.batches import ImageBatches
from distail.data.prepare import PreparedData
from distail.data.seeding import stream_key
from distail.errors import CheckpointError
from distail.evaluation.metrics import MetricValues, evaluate_predictions
from distail.methods.method import Method
from distail.models import FeatureTap, create_model
from distail.models.input_normalization import InputNormalization
from distail.models.timm_bridge import TimmModel
from distail.models.weights import read_metadata
from distail.runner.checks import DEFAULT_SHORTCUT
from distail.torch_utils import kept_random_state
from distail.training.device import RuntimeDevice
from distail.training.finite import check_logits
from distail.training.predict import in_order, predict
from distail.training.stage import Stage
from distail.training.step import frozen_teacher
from distail.training.teacher_cache import TeacherCache


def build_network(model: Model, classifier: str, data: PreparedData) -> FeatureTap:
    """A tapped network that fits the data."""
    channels, height, width = data.train.image_shape
    classes = len(data.class_names)
    bare = create_model(
        model.name,
        num_classes=classes,
        in_channels=channels,
        shortcut=model.shortcut or DEFAULT_SHORTCUT,
        classifier=classifier,
        image_size=min(height, width),
        weights=model.weights,
        mean=data.mean,
        std=data.std,
    )
    return FeatureTap(bare, classes)


def describe_network(model: Model, classifier: str, data: PreparedData) -> dict[str, str]:
    """What a weights file says of its network: enough to build it again and to check its classes."""
    return {
        "model": model.name,
        "shortcut": model.shortcut or DEFAULT_SHORTCUT,
        "classifier": classifier,
        "class_names": json.dumps(list(data.class_names)),
        "in_channels": str(data.train.image_shape[0]),
        "mean": json.dumps(list(data.mean)),
        "std": json.dumps(list(data.std)),
        "subset_sha256": data.subset_sha256,
    }


def with_training_metadata(told: Mapping[str, str], described: Mapping[str, str]) -> dict[str, str]:
    """A description whose training data are those that another one tells of, or none where it tells of none."""
    data = ("mean", "std", "subset_sha256")
    kept = {key: value for key, value in described.items() if key not in data}
    return kept | {key: told[key] for key in data if key in told}


def match_normalization(tap: FeatureTap, weights: Path, data: PreparedData) -> None:
    """Let a loaded network see the data's images normalised as those that it was trained on, where its file says how.

    Raises:
        CheckpointError: what the file says is damaged.
    """
    told = read_metadata(weights)
    if "mean" not in told or "std" not in told or isinstance(tap.model, TimmModel):  # which converts by itself
        return
    try:
        mean, std = ([float(value) for value in json.loads(told[key])] for key in ("mean", "std"))
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(
            f"{str(weights)!r}: its mean and std are {told['mean'][:80]!r} and {told['std'][:80]!r}; expected lists of "
            "numbers"
        ) from None
    if (mean, std) != (list(data.mean), list(data.std)):
        convert = InputNormalization(data.mean, data.std, mean, std).to(next(tap.parameters()).device)
        tap.model.register_forward_pre_hook(lambda _, given: (convert(given[0]), *given[1:]))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Torch's generator, seeded for one purpose and put back afterwards."""
    with kept_random_state():
        torch.manual_seed(int(stream_key(purpose, seed)) >> 1)
        yield


def build_stage(
    experiment: Experiment,
    name: str,
    network: FeatureTap,
    teacher: FeatureTap | None,
    method: Method,
    training: Training,
    data: PreparedData,
    runtime: RuntimeDevice,
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
        device=runtime.device,
        channels_last=runtime.channels_last,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    listen = frozen_teacher(teacher, runtime) if teacher else None

    def validate(tap: FeatureTap) -> MetricValues:
        assert data.validation is not None
        logits = predict(tap, data.validation, data.mean, data.std, runtime)
        check_logits(logits, "validation")
        return evaluate_predictions(logits, data.validation.labels, data.class_counts)

    def prepare() -> None:
        assert listen is not None
        shares = in_order(data.train, data.mean, data.std, runtime)
        method.prepare((listen(batch), batch.labels) for batch in shares if len(batch.labels))

    # Before the method goes to its device, which need not hold what other processes remember.
    method.split_memory(runtime.rank, runtime.world_size)
    cache = None
    if listen and stored_views:
        cache = TeacherCache(
            listen,
            batches,
            runtime,
            features=method.needs.teacher_features,
            limit_mb=experiment.trainer.cache_limit_mb,
            folder=folder,
        )
    return Stage(
        name=name,
        student=network,
        teacher=cache or listen,
        method=method.to(runtime.device),
        batches=batches,
        validate=validate if data.validation else None,
        training=training,
        runtime=runtime,
        seed=seed,
        compile=experiment.trainer.compile,
        data_sha256=data.subset_sha256,
        prepare=prepare if method.needs.class_means else None,
        fill=cache.fill if cache else None,
    )
