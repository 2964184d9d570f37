"""Which class posterior the networks of a run learn, and so whether adjusting is for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distail.config.schema import Experiment
from distail.data.arrays import training_weights
from distail.data.prepare import PreparedData
from distail.evaluation.adjustment import corrects_twice
from distail.evaluation.array_file import open_arrays
from distail.methods.composition import Composition
from distail.methods.context import BALANCED, MIXED, NATURAL
from distail.methods.presets import read_composition
from distail.models.weights import read_metadata
from distail.runner.compositions import classifier_composition, method_composition, needs_teacher, teacher_composition

_ANSWERS = (".npz", ".parquet")
"""Files of answers that are no safetensors, which weights are too."""


def student_posterior(experiment: Experiment, data: PreparedData | None = None) -> str | None:
    """Which class posterior the student learns: `natural`, `balanced`, `mixed`, or None where none is known.

    A classifier stage decides, where there is one. Of a loaded teacher its files say what it learned, as long as they
    are there; without a word of them it was trained as the method's paper says.

    Args:
        data: whose weights and class counts have a say, too.
    """
    composition = _composition(experiment, data)
    return composition.posterior_with(_taught(experiment, data) or composition.teacher_posterior)


def teacher_posterior(
    experiment: Experiment, described: Mapping[str, str] | None = None, data: PreparedData | None = None
) -> str | None:
    """The teacher's; of a loaded one what its file says, else that of `teacher.supervised`, by default `ce`.

    Args:
        described: the metadata of the weights of a loaded teacher.
        data: as in `student_posterior`.
    """
    assert experiment.teacher is not None
    if not experiment.teacher.files:
        return _composition(experiment, data, of_teacher=True).posterior
    if described is not None and "posterior" in described:
        return described["posterior"]
    return _of_supervised(experiment)


def can_be_adjusted(experiment: Experiment) -> bool:
    """Whether class priors may be left to remove after training: not where terms or the sampler removed them."""
    return _composition(experiment).drawn == NATURAL and student_posterior(experiment) != BALANCED


def posterior_notes(experiment: Experiment, data: PreparedData | None = None) -> list[str]:
    """What to tell the user where parts of a run aim at two posteriors, or correct the class priors twice.

    Parts are the terms of the method, of its classifier stage and of its teacher, the sampler, the weights of examples,
    and `method.adjust`.
    """
    teacher, taught, notes = experiment.teacher, _taught(experiment, data), []
    if teacher is not None and teacher.trained_here and needs_teacher(experiment):
        own = _by_stage(experiment, data, lambda composition: [composition.sampling_warning()], of_teacher=True)
        notes += [f"of the teacher: {warning}" for warning in own]
    notes += _by_stage(
        experiment,
        data,
        lambda composition: [
            composition.posterior_warning(taught),
            composition.correction_warning(taught),
            composition.order_warning(),
            composition.sampling_warning(),
        ],
    )
    if adjust := experiment.adjust:
        tau = adjust if isinstance(adjust, str) else f"{adjust:g}"
        notes += corrects_twice(f"method.adjust is {tau}, but the student", student_posterior(experiment, data))
    return notes


def _by_stage(
    experiment: Experiment,
    data: PreparedData | None,
    warnings_of: Callable[[Composition], list[str | None]],
    *,
    of_teacher: bool = False,
) -> list[str]:
    """The warnings of the training, and of the classifier stage where there is one; what is of both once."""
    before, late = (
        [
            warning
            for warning in warnings_of(_composition(experiment, data, of_teacher=of_teacher, late=late))
            if warning
        ]
        for late in (False, True)
    )
    return [
        *(warning if warning in late else f"before the classifier stage: {warning}" for warning in before),
        *(f"in the classifier stage: {warning}" for warning in late if warning not in before),
    ]


def as_entry(supervised: str | Mapping[str, Any]) -> dict[str, Any]:
    """A supervised entry as a mapping, as `teacher.supervised` has it.

    >>> as_entry("ce"), as_entry({"name": "bce", "tau": 1.0})
    ({'name': 'ce'}, {'name': 'bce', 'tau': 1.0})
    """
    return {"name": supervised} if isinstance(supervised, str) else dict(supervised)


def posterior_of_files(files: Iterable[Path]) -> str | None:
    """What files of weights, or of answers, say together: `mixed` where they differ, None where one says nothing."""
    said = {_of_file(path) for path in files}
    if not said or None in said:
        return None
    return said.pop() if len(said) == 1 else MIXED


def _of_file(path: Path) -> str | None:
    is_other = path.suffix.lower() in _ANSWERS
    return (open_arrays(path).facts if is_other else read_metadata(path)).get("posterior")


def _taught(experiment: Experiment, data: PreparedData | None) -> str | None:
    """Which posterior the teacher's terms, or its files, say that it learned; None where nobody knows."""
    teacher = experiment.teacher
    if teacher is None or teacher.is_previous_epoch:
        return None
    if not teacher.files:
        return teacher_posterior(experiment, data=data)
    # They may be gone when a run goes on.
    found = posterior_of_files(path for path in teacher.files if path.is_file())
    return found or (_of_supervised(experiment) if teacher.supervised else None)


def _of_supervised(experiment: Experiment) -> str | None:
    """What `teacher.supervised` aims at, by default `ce`."""
    assert experiment.teacher is not None
    supervised = experiment.teacher.supervised
    labels = {key: own for key, own in method_composition(experiment).items() if key == "labels"}
    return read_composition({"name": "ce", **({"supervised": supervised} if supervised else {}), **labels}).posterior


def _composition(
    experiment: Experiment, data: PreparedData | None = None, *, of_teacher: bool = False, late: bool = True
) -> Composition:
    """The terms of a network's training, at its end or before its classifier stage, over the images that are drawn."""
    stage = (experiment.teacher_training if of_teacher else experiment.training).classifier_stage if late else None
    if late:
        raw = classifier_composition(experiment, of_teacher=of_teacher)
    else:
        raw = teacher_composition(experiment) if of_teacher else method_composition(experiment)
    sampler = (stage.sampler if stage else None) or experiment.data.sampler
    drawn, weighted = _DRAWN[sampler], NATURAL if data is None else _weighted(data)
    if weighted != NATURAL:
        drawn = weighted if drawn == NATURAL else MIXED
    counts = () if data is None else data.class_counts
    return replace(read_composition(raw), drawn=drawn, weighted=weighted != NATURAL, class_counts=counts)


def _weighted(data: PreparedData) -> str:
    """What is learned of plain labels whose examples have weights, by how much of the imbalance these leave.

    By the slope of the logarithm of a class's mean weight over that of its count: 0 where weights are independent of
    the class, -1 where they balance the classes. A slope within three standard errors of 0 is none.
    """
    counts_C, weights_N = torch.tensor(data.class_counts).double(), training_weights(data.train)
    if weights_N is None or data.train.labels.ndim == 2 or counts_C.max() < _LEAST_IMBALANCE * counts_C.min():
        return NATURAL
    labels, weights_N = data.train.labels, weights_N.double()
    mean_C = (torch.bincount(labels, weights_N, minlength=len(counts_C)) / counts_C).clamp_min(1e-12)
    spread = ((weights_N / mean_C[labels] - 1) ** 2).mean()  # relative to the class's mean
    x_C, y_C, share_C = counts_C.log(), mean_C.log(), counts_C / counts_C.sum()
    x_C, y_C = x_C - (share_C * x_C).sum(), y_C - (share_C * y_C).sum()
    moved = (counts_C * x_C**2).sum()
    slope, error = (counts_C * x_C * y_C).sum() / moved, (spread / moved).sqrt()
    if slope.abs() <= 3 * error or slope > -0.1:
        return NATURAL
    return MIXED if slope > -0.9 else BALANCED


_LEAST_IMBALANCE = 1.5
"""Largest class to smallest, below which weights of examples have no say."""
_DRAWN = {"instance": NATURAL, "class_balanced": BALANCED, "square_root": MIXED}
"""Samplers, to what is learned of plain labels: rare classes that are drawn more often take prior off as well."""
