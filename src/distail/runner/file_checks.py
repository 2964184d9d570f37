"""The files of weights that a run begins with."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from distail.config.schema import Experiment
from distail.errors import CheckpointError, Problems
from distail.models.weights import recognize_weights
from distail.runner.run_folder import RunFolder


def check_weight_files(experiment: Experiment, problems: Problems) -> None:
    """The files that a stage begins with must be there until it has begun."""
    folder = RunFolder(experiment.output)
    for name, section in (("teacher", experiment.teacher), ("student", experiment.student)):
        if section is None or folder.has_stage(name):
            continue
        own = {f"{name}.checkpoint": section.checkpoint, f"{name}.model.weights": section.model.weights}
        for place, member in enumerate(section.model.members, start=1):
            own[f"{name}, number {place}, checkpoint"] = member.weights
        for key, path in own.items():
            if path is not None:
                problems.attempt(partial(_check_file, path), key)


def _check_file(path: Path) -> None:
    if not path.is_file():
        problem = (
            f"{str(path)!r} is a folder; expected a file of weights" if path.is_dir() else f"no file {str(path)!r}"
        )
        raise CheckpointError(problem)
    recognize_weights(path)
