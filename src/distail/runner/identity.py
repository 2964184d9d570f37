"""What makes an experiment on its data the run that it is, and what of its data has changed since it was finished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distail.config.schema import Experiment
from distail.data.prepare import PreparedData, prepare_data
from distail.data.sources.locate import files_state
from distail.errors import DistailError
from distail.evaluation.run_files import RunResult
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


def changed_data(experiment: Experiment, identity: Mapping[str, Any]) -> list[str]:
    """What of a finished run's data is another now; nothing where it is gone altogether, which is no fault.

    The images are read only where a file's name, size or time has changed.
    """
    now = files_state(experiment.data)
    if now is None or now == identity.get("data_files"):
        return []
    try:
        data = prepare_data(experiment.data, seed=experiment.seed)
    except DistailError as error:
        return [f"data that cannot be read: {error}"]
    return changed_parts(identity, {**identity_of(experiment, data, now), "teacher": identity.get("teacher")})


def other_images(result: RunResult | None, data: PreparedData) -> list[str]:
    """What of the training and test images of a finished run is another in these data, in words."""
    identity = None if result is None else result.get("identity")
    if identity is None:
        return []
    now = {"training_data": data.subset_sha256, "test_data": data.test_sha256}
    return changed_parts({part: identity[part] for part in now}, now)
