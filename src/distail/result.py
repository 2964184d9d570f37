"""What a finished run leaves in `result.json`."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distail._version import __version__
from distail.config import Experiment
from distail.data.prepare import PreparedData
from distail.models import FeatureTap
from distail.models.summary import count_macs, count_parameters
from distail.run_folder import SCHEMA_VERSION
from distail.training.machine import Machine
from distail.training.stage import Fitted


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and everything in its `result.json`."""

    folder: Path
    figures: dict[str, Any]

    @property
    def student(self) -> dict[str, Any]:
        """The student's figures on the test set, last epoch."""
        test: dict[str, Any] = self.figures["student"]["test"]
        return test

    @property
    def teacher(self) -> dict[str, Any] | None:
        """The teacher's figures on the test set, or None where there was no teacher."""
        teacher = self.figures["teacher"]
        return None if teacher is None else teacher["test"]


@dataclass(frozen=True)
class Tested:
    """A network with its time in training (None: it was loaded) and its figures on the test set."""

    network: FeatureTap
    fitted: Fitted | None
    figures: dict[str, Any]


def result_figures(
    experiment: Experiment,
    data: PreparedData,
    machine: Machine,
    teacher: Tested | None,
    student: Tested,
    best: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of `result.json`: a contract, whose changes raise `SCHEMA_VERSION`."""
    shape = data.train.image_shape
    stages = {"teacher": teacher, "student": student}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": experiment.name,
        "seed": experiment.seed,
        "method": experiment.method_name,
        "class_names": list(data.class_names),
        "class_counts": list(data.class_counts),
        "subset_sha256": data.subset_sha256,
        "teacher": None if teacher is None else {"test": teacher.figures},
        "student": {"test": student.figures, "best_on_validation": best},
        "timing": {name: _timing(stage, len(data.train)) for name, stage in stages.items()},
        "parameters": {
            name: count_parameters(stage.network.model) if stage else None for name, stage in stages.items()
        },
        "macs": {name: count_macs(stage.network.model, shape) if stage else None for name, stage in stages.items()},
        "versions": versions(machine),
        "config": experiment.model_dump(mode="json"),
    }


def versions(machine: Machine) -> dict[str, str]:
    """What the figures were made with."""
    return {
        "distail": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(machine.device) if machine.device.type == "cuda" else machine.device.type,
        "precision": machine.precision,
        "processes": str(machine.world_size),
    }


def _timing(stage: Tested | None, images: int) -> dict[str, float] | None:
    if stage is None or stage.fitted is None:
        return None
    seconds = stage.fitted.seconds
    return {"seconds": round(seconds, 3), "images_per_second": round(images * len(stage.fitted.history) / seconds, 1)}
