"""The repair that an audit recommends, trained: better for an average class than plain distillation."""

from __future__ import annotations

import pytest

import distail
from distail.audit.target import load_target
from distail.training.progress import Silent

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def experiment(folder, method, factor, teacher):
    return {
        "name": "recommended",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": factor, "augment": ["crop"], "validation": 0.1},
        "teacher": teacher,
        "student": "resnet8",
        "method": method,
        "training": {"epochs": 20, "batch_size": 64, "learning_rate": 0.1, "schedule": "one-cycle"},
        "trainer": {"device": "cpu", "precision": "fp32", "trackers": []},
    }


@pytest.mark.parametrize("factor", [10, 50, 140], ids=["mild", "strong", "a tail of one image"])
def test_what_is_recommended_beats_kd_in_balanced_accuracy_and_keeps_top1(factor, tmp_path):
    kd = distail.run(experiment(tmp_path / "kd", "kd", factor, {"model": "resnet20"}), reporter=Silent())
    found = load_target(tmp_path / "kd", reporter=Silent()).audit()["recommendation"]
    teacher = {"model": "resnet20", "checkpoint": str(tmp_path / "kd" / "teacher.safetensors")}
    repaired = distail.run(experiment(tmp_path / "own", found["method"], factor, teacher), reporter=Silent())
    assert repaired.student["balanced_accuracy"] > kd.student["balanced_accuracy"]
    assert repaired.student["top1"] > kd.student["top1"] - 2.0
