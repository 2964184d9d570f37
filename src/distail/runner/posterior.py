"""Which class posterior the networks of a run learn, and so whether adjusting is for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distail.config.schema import Experiment, Training
from distail.methods.presets import read_composition
from distail.models.weights import read_metadata
from distail.runner.checks import classifier_composition, method_composition


def student_posterior(experiment: Experiment) -> str | None:
    """Which class posterior the student learns: `natural`, `balanced`, `mixed`, or None where none is known.

    A classifier stage decides, where there is one.
    """
    composition = read_composition(classifier_composition(experiment))
    supervised = experiment.teacher.supervised if experiment.teacher else None
    posterior = composition.posterior_with(supervised or composition.teacher_supervised)
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
    assumed = {key: own for key, own in method_composition(experiment).items() if key == "labels"}
    supervised = experiment.teacher.supervised
    return read_composition({"name": "ce", **({"supervised": supervised} if supervised else {}), **assumed}).posterior


def posterior_notes(experiment: Experiment) -> list[str]:
    """What to tell the user where the method's parts, or its teacher, aim at two posteriors, or one is taken twice."""
    composition, teacher = read_composition(method_composition(experiment)), experiment.teacher
    supervised = teacher.supervised if teacher else None
    if supervised is None and (teacher is None or not teacher.files):
        supervised = as_entry(composition.teacher_supervised)
    learned = None
    if teacher is not None and teacher.has_network and composition.needs.teacher:
        files = [path for path in teacher.files if path.is_file()]  # of a run that goes on, they may be gone
        learned = posterior_of_files(files) if teacher.files else teacher_posterior(experiment)
    warnings = (composition.posterior_warning(supervised), composition.correction_warning(learned))
    return [warning for warning in warnings if warning is not None]


def as_entry(supervised: str | Mapping[str, Any]) -> dict[str, Any]:
    """A supervised entry as a mapping, as `teacher.supervised` has it.

    >>> as_entry("ce"), as_entry({"name": "bce", "tau": 1.0})
    ({'name': 'ce'}, {'name': 'bce', 'tau': 1.0})
    """
    return {"name": supervised} if isinstance(supervised, str) else dict(supervised)


def posterior_of_files(files: Iterable[Path]) -> str | None:
    """What files of weights say together; None where one says nothing, or they differ."""
    said = {read_metadata(path).get("posterior") for path in files}
    return said.pop() if len(said) == 1 else None


def _as_drawn(posterior: str | None, experiment: Experiment, training: Training) -> str | None:
    """That of terms, over the images that a sampler draws: rare classes drawn more often remove prior as well."""
    late = training.classifier_stage
    sampler = (late.sampler if late else None) or experiment.data.sampler
    if sampler == "instance" or posterior is None:
        return posterior
    return "balanced" if sampler == "class_balanced" and posterior == "natural" else "mixed"
