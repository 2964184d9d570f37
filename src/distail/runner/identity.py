"""What makes an experiment on its data the run that it is, and what of its data has changed since it was finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distail.config.networks import Teacher
from distail.config.schema import Experiment
from distail.data.prepare import PreparedData, prepare_data
from distail.data.sources.locate import files_state
from distail.errors import CheckpointError, DistailError
from distail.evaluation.run_files import RunFiles, RunResult
from distail.files import file_hash, tensors_hash
from distail.models.weights import read_state_dict, stored_for
from distail.training.identity import Identity, changed_parts


def identity_of(experiment: Experiment, data: PreparedData, data_files: str | None) -> Identity:
    """The identity before there is a teacher; `data_files` is the state of the data's files when they were read."""
    return {
        "experiment": experiment.model_dump(mode="json"),
        "training_data": data.subset_sha256,
        "validation_data": data.validation_sha256,
        "test_data": data.test_sha256,
        "data_files": data_files,
        "teacher": None,
    }


def changed_data(experiment: Experiment, identity: Mapping[str, Any], *, call_functions: bool = False) -> list[str]:
    """What of a finished run's data is another now; nothing where it is gone altogether, which is no fault.

    The images are read only where a file's name, size or time has changed.

    Args:
        call_functions: whether to look at the data of a user's function too, which has no files to tell of a change:
            all of it is read.
    """
    now = files_state(experiment.data)
    called = call_functions and ":" in experiment.data.name
    if not called and (now is None or now == identity.get("data_files")):
        return []
    try:
        data = prepare_data(experiment.data, seed=experiment.seed)
    except DistailError as error:
        return [f"data that cannot be read: {error}"]
    return changed_parts(identity, {**identity_of(experiment, data, now), "teacher": identity.get("teacher")})


def changed_teacher(experiment: Experiment, identity: Mapping[str, Any]) -> list[str]:
    """Whether the files of a finished run's teacher hold another now.

    Nothing where they are gone or damaged: a run may give them back, and whoever needs them tells.
    """
    teacher, then = experiment.teacher, identity.get("teacher")
    own = RunFiles(experiment.output).weights("teacher")
    if teacher is None or then is None or not teacher.files or not all(path.is_file() for path in teacher.files):
        return []
    try:
        if teacher.logits is not None:
            now = file_hash(teacher.logits)
        elif own.is_file():
            now = _hash_now(teacher, own)
        else:
            return []
    except (CheckpointError, OSError):
        return []
    return changed_parts({"teacher": then}, {"teacher": now})


def _hash_now(teacher: Teacher, own: Path) -> str:
    """The hash that a network loaded from the teacher's files would have.

    Args:
        own: the run's copy of its teacher, which has the names and types of the network's tensors without building it.
    """
    tensors = read_state_dict(own, "teacher")
    members = {f"members.{place}.": member.weights for place, member in enumerate(teacher.model.members)}
    for prefix, path in ({"": teacher.checkpoint} if teacher.checkpoint else members).items():
        if path is None:
            continue
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for name, tensor in stored_for(named, path, "teacher").items():
            tensors[prefix + name] = tensor.to(named[name].dtype) if name in named else tensor
    return tensors_hash(tensors)


def other_images(result: RunResult | None, data: PreparedData) -> list[str]:
    """What of the training and test images of a finished run is another in these data, in words."""
    identity = None if result is None else result.get("identity")
    if identity is None:
        return []
    now = {"training_data": data.subset_sha256, "test_data": data.test_sha256}
    return changed_parts({part: identity[part] for part in now}, now)
