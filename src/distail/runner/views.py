"""How many views of each image a teacher is asked about, where `teacher.views: auto` leaves it to the run."""

from __future__ import annotations

from distail.config.precision import Precisions
from distail.config.schema import Experiment
from distail.config.section import AUTO
from distail.data.prepare import PreparedData
from distail.errors import counted
from distail.files import MEGABYTE
from distail.runner.checks import needs_of, teacher_model
from distail.runner.context import TEACHER
from distail.runner.precision import structure_of

EPOCHS_A_VIEW = 5
"""How often `auto` shows each view: filling then costs a fifth of what a live teacher does."""
FEWEST_VIEWS = 10
"""Fewer than these cost accuracy on a small data set (docs/speed.md), so that `auto` asks at every step instead."""


def with_settled_views(
    experiment: Experiment, stored: Experiment | None, data: PreparedData, formats: Precisions
) -> tuple[Experiment, list[str]]:
    """The experiment with a number for `teacher.views: auto`, and what is to be said of it.

    A run that goes on keeps the number that it began with (`stored`).
    """
    teacher = experiment.teacher
    if teacher is None or teacher.views != AUTO:
        return experiment, []
    if stored is not None and stored.teacher is not None and stored.teacher.views != AUTO:
        return _with_views(experiment, stored.teacher.views), []
    views, why = _choose(experiment, data, formats)
    return _with_views(experiment, views), [f"teacher.views: auto is {views}: {why}"]


def asked_at_every_step(experiment: Experiment) -> Experiment:
    """The experiment without stored views."""
    return _with_views(experiment, 0) if experiment.teacher and experiment.teacher.views else experiment


def _with_views(experiment: Experiment, views: int) -> Experiment:
    assert experiment.teacher is not None
    return experiment.model_copy(update={"teacher": experiment.teacher.model_copy(update={"views": views})})


def _choose(experiment: Experiment, data: PreparedData, formats: Precisions) -> tuple[int, str]:
    teacher, mix, epochs = experiment.teacher, experiment.training.mix, experiment.training.epochs
    assert teacher is not None
    if not (teacher.has_network and needs_of(experiment).teacher):
        return 0, "no network is asked"
    if mix is not None and mix.share:
        return 0, f"the teacher must see the images that {mix.name} has mixed"
    if not experiment.data.augment:
        return 1, "without augmentation the teacher says the same of an image at every step"
    views = epochs // EPOCHS_A_VIEW
    if views < FEWEST_VIEWS:
        return 0, f"{counted(epochs, 'epoch')} are too few to store enough views of each image"
    limit = experiment.trainer.cache_limit_mb
    fits = int(limit * MEGABYTE / (len(data.train) * _bytes_a_row(experiment, data, formats)))
    if fits < FEWEST_VIEWS:
        return 0, f"trainer.cache_limit_mb: {limit} holds the answers to {counted(fits, 'view')} of each image alone"
    return min(views, fits), (
        f"the teacher is asked once about each view of an image, which {epochs:,} epochs show in turn"
    )


def _bytes_a_row(experiment: Experiment, data: PreparedData, formats: Precisions) -> int:
    """What is stored of one view of one image: the logits, and the features where the method reads them."""
    width = len(data.class_names)
    if needs_of(experiment).teacher_features:
        width += structure_of(experiment, TEACHER, teacher_model(experiment), data, features=True).feature_dim or 0
    return width * (4 if formats.teacher_inference == "fp32" else 2)
