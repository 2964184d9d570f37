"""Which class posterior the networks of a run learn, and so whether adjusting is for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distail.config.schema import Experiment, Training
from distail.evaluation.array_file import open_arrays
from distail.methods.context import BALANCED, MIXED, NATURAL
from distail.methods.presets import read_composition
from distail.models.weights import read_metadata
from distail.runner.checks import classifier_composition, method_composition

_ANSWERS = (".npz", ".parquet")
"""Files of answers that are no safetensors, which weights are too."""


def student_posterior(experiment: Experiment) -> str | None:
    """Which class posterior the student learns: `natural`, `balanced`, `mixed`, or None where none is known.

    A classifier stage decides, where there is one. Of a loaded teacher its files say what it learned, as long as they
    are there; without a word of them it was trained as the method's paper says.
    """
    composition = read_composition(classifier_composition(experiment))
    posterior = composition.posterior_with(_taught(experiment) or composition.teacher_posterior)
    return _as_drawn(posterior, experiment, experiment.training)


def teacher_posterior(experiment: Experiment, described: Mapping[str, str] | None = None) -> str | None:
    """The teacher's; of a loaded one what its file says, else that of `teacher.supervised`, by default `ce`.

    Args:
        described: the metadata of the weights of a loaded teacher.
    """
    assert experiment.teacher is not None
    if not experiment.teacher.files:
        posterior = read_composition(classifier_composition(experiment, of_teacher=True)).posterior
        return _as_drawn(posterior, experiment, experiment.teacher_training)
    if described is not None and "posterior" in described:
        return described["posterior"]
    return _of_supervised(experiment)


def can_be_adjusted(experiment: Experiment) -> bool:
    """Whether class shares may be left to take off after training: not where terms or draws took them off already."""
    return _sampler(experiment, experiment.training) == "instance" and student_posterior(experiment) != BALANCED


def posterior_notes(experiment: Experiment) -> list[str]:
    """What to tell the user where the method's parts, or its teacher, aim at two posteriors, or one is taken twice."""
    composition, taught = read_composition(method_composition(experiment)), _taught(experiment)
    teacher = experiment.teacher
    learned = None
    if teacher is not None and composition.needs.teacher and not teacher.is_previous_epoch:
        learned = taught if teacher.files else teacher_posterior(experiment)
    warnings = (composition.posterior_warning(taught), composition.correction_warning(learned))
    return [warning for warning in warnings if warning is not None]


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


def _taught(experiment: Experiment) -> str | None:
    """Which posterior the teacher's terms, or its files, say that it learned; None where nobody knows."""
    teacher = experiment.teacher
    if teacher is None or teacher.is_previous_epoch:
        return None
    if not teacher.files:
        return read_composition(classifier_composition(experiment, of_teacher=True)).posterior
    # They may be gone when a run goes on.
    found = posterior_of_files(path for path in teacher.files if path.is_file())
    return found or (_of_supervised(experiment) if teacher.supervised else None)


def _of_supervised(experiment: Experiment) -> str | None:
    """What `teacher.supervised` aims at, by default `ce`."""
    assert experiment.teacher is not None
    supervised = experiment.teacher.supervised
    labels = {key: own for key, own in method_composition(experiment).items() if key == "labels"}
    return read_composition({"name": "ce", **({"supervised": supervised} if supervised else {}), **labels}).posterior


def _as_drawn(posterior: str | None, experiment: Experiment, training: Training) -> str | None:
    """That of terms, over the images that a sampler draws: rare classes drawn more often remove prior as well."""
    sampler = _sampler(experiment, training)
    if sampler == "instance" or posterior is None:
        return posterior
    return BALANCED if sampler == "class_balanced" and posterior == NATURAL else MIXED


def _sampler(experiment: Experiment, training: Training) -> str:
    """How images are drawn at the end, for the classifier."""
    late = training.classifier_stage
    return (late.sampler if late else None) or experiment.data.sampler
