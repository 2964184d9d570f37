"""How many views of each image a teacher is asked about, and in which file several runs share what it says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from distail.config.precision import Precisions
from distail.config.schema import Experiment
from distail.config.section import ALL, AUTO
from distail.data.batches import TrainingBatches
from distail.data.items import StreamedItems
from distail.data.prepare import PreparedData
from distail.errors import counted
from distail.files import MEGABYTE
from distail.methods.presets import read_composition
from distail.runner.checks import teacher_model
from distail.runner.compositions import classifier_composition, needs_of, read_method
from distail.runner.context import TEACHER, RunContext
from distail.runner.normalization import stored_normalization
from distail.runner.precision import structure_of
from distail.runner.run_folder import CHANGEABLE_DATA_SETTINGS

EPOCHS_A_VIEW = 5
"""How often `auto` shows each view: filling then costs a fifth of what a live teacher does."""
FEWEST_VIEWS = 10
"""Fewer than these `auto` never stores: 1 to 8 views, which were measured (benchmarks/views/table.md, one seed of 30
epochs), cost 0.9 to 3.2 points of top-1; 10 and 20 of 100 epochs cost none (benchmarks/views/100-epochs, one seed)."""


def stored_views(views: int | str, epochs: int) -> int:
    """How many views a stage of a run stores: none where it has no more epochs than views, each of which asks once.

    Args:
        views: `teacher.views`; of `auto`, which a run has still to settle, none are.

    >>> stored_views(8, epochs=50), stored_views(8, epochs=8), stored_views("all", epochs=8)
    (8, 0, 8)
    """
    if views == ALL:
        return epochs
    return views if isinstance(views, int) and views < epochs else 0


def shared_file(
    run: RunContext, batches: TrainingBatches, identity: Mapping[str, object], *, features: bool
) -> Path | None:
    """Where a stage shares the teacher's answers with other runs, named by all that decides them; None: nowhere.

    Several processes, which may not see the same disk, share nothing.
    """
    folder, teacher = run.experiment.trainer.views_folder, run.experiment.teacher
    if folder is None or run.runtime.processes.size > 1:
        return None
    assert teacher is not None
    data = run.experiment.model_dump(mode="json")["data"]
    shown = {key: value for key, value in data.items() if key not in {*CHANGEABLE_DATA_SETTINGS, "sampler"}}
    content = {
        "teacher": identity["teacher"],
        "network": [teacher_model(run.experiment).model_dump(mode="json"), teacher.classifier],
        "normalization": stored_normalization(run.folder.weights(TEACHER)),
        "training_data": identity["training_data"],
        "data": shown,
        "views": [batches.views, batches.view_seed],
        "features": features,
        "computed": [run.formats.teacher_inference, run.runtime.device.type],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return folder / f"{digest[:24]}.safetensors"


def with_settled_views(
    experiment: Experiment, stored: Experiment | None, data: PreparedData, formats: Precisions
) -> tuple[Experiment, list[str]]:
    """The experiment with a number for `teacher.views: auto`, and what is to be said of it.

    A run that goes on keeps the number that it began with (`stored`).
    """
    teacher, notes = experiment.teacher, []
    if teacher is None:
        return experiment, []
    if teacher.views != AUTO:
        settled = experiment
    elif stored is not None and stored.teacher is not None and stored.teacher.views != AUTO:
        settled = _with_views(experiment, stored.teacher.views)
    else:
        views, why = _choose(experiment, data, formats)
        settled, notes = _with_views(experiment, views), [f"teacher.views: auto is {views}: {why}"]
    return settled, [*notes, *_live_stages(settled)]


def asked_at_every_step(experiment: Experiment) -> Experiment:
    """The experiment without stored views."""
    return _with_views(experiment, 0) if experiment.teacher and experiment.teacher.views else experiment


def _with_views(experiment: Experiment, views: int | str) -> Experiment:
    assert experiment.teacher is not None
    return experiment.model_copy(update={"teacher": experiment.teacher.model_copy(update={"views": views})})


def _live_stages(experiment: Experiment) -> list[str]:
    """A sentence for each stage that asks the teacher at every step, although views were to be stored."""
    training, teacher = experiment.training, experiment.teacher
    if teacher is None or not (teacher.stores_views and teacher.has_network):
        return []
    stages = [("training", training.backbone_epochs)] if read_method(experiment).needs.teacher else []
    if training.classifier_stage and read_composition(classifier_composition(experiment)).needs.teacher:
        stages.append(("training.classifier_stage", training.classifier_stage.epochs))
    return [
        f"{key}: {counted(epochs, 'epoch')}, no more than teacher.views: {teacher.views}, so that the teacher is "
        "asked at every step, which costs no more"
        for key, epochs in stages
        if not stored_views(teacher.views, epochs)
    ]


def _choose(experiment: Experiment, data: PreparedData, formats: Precisions) -> tuple[int, str]:
    teacher, mix, epochs = experiment.teacher, experiment.training.mix, experiment.training.backbone_epochs
    assert teacher is not None
    if not (teacher.has_network and needs_of(experiment).teacher):
        return 0, "no teacher network is needed"
    if mix is not None and mix.share and read_method(experiment).needs.teacher:
        return 0, f"the teacher must see the images after {mix.name}"
    if not experiment.data.augment and not isinstance(data.train, StreamedItems):  # which may draw for themselves
        return 1, "without augmentation the teacher's prediction of an image is the same at every step"
    views = epochs // EPOCHS_A_VIEW
    if views < FEWEST_VIEWS:
        return 0, f"{counted(epochs, 'epoch')} are too few to store enough views of each image"
    limit = experiment.trainer.cache_limit_mb
    fits = int(limit * MEGABYTE / (len(data.train) * _bytes_a_row(experiment, data, formats)))
    if fits < FEWEST_VIEWS:
        return 0, f"trainer.cache_limit_mb: {limit} holds the outputs of only {counted(fits, 'view')} per image"
    return min(views, fits), (
        f"the teacher runs once per view of each image, and {epochs:,} epochs use the views in turn"
    )


def _bytes_a_row(experiment: Experiment, data: PreparedData, formats: Precisions) -> int:
    """What is stored of one view of one image: the logits, and the features where the method reads them."""
    width = len(data.class_names)
    if needs_of(experiment).teacher_features:
        width += structure_of(experiment, TEACHER, teacher_model(experiment), data, features=True).feature_dim or 0
    return width * (4 if formats.teacher_inference == "fp32" else 2)
