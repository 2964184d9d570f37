"""Every method trains a student of its own, and a run of it that was stopped ends as if it had not been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distail.methods.preset_table import PRESETS
from distail.training.signals import Interrupted
from helpers.whole_runs import Killed, experiment, run

pytestmark = pytest.mark.integration

METHODS = {name: {"method": name} for name in PRESETS}
METHODS["ipwd-one-stage"] = {"method": "ipwd", "teacher": "previous_epoch"}
OPTIONS = {"training": {"epochs": 3, "batch_size": 128, "learning_rate": 0.05}, "student": "tiny_network:build"}
# Of four steps per epoch: in the middle of the first epoch, and eight steps on, in the middle of the last.
KILLS = (2, 8)


@pytest.fixture(scope="module", autouse=True)
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("network")
    (folder / "tiny_network.py").write_text(
        "from torch import nn\n\n\n"
        "def build(num_classes, in_channels):\n"
        "    body = [nn.Flatten(), nn.Linear(64 * in_channels, 24), nn.BatchNorm1d(24), nn.ReLU()]\n"
        "    return nn.Sequential(*body, nn.Linear(24, num_classes))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = run(experiment(tmp_path_factory.mktemp("teacher") / "run", "kd", **OPTIONS)).folder
    return {"model": "same", "checkpoint": str(folder / "teacher.safetensors")}


def student(folder: Path) -> bytes:
    return (folder / "student.safetensors").read_bytes()


@pytest.fixture(scope="module")
def plain_kd(tmp_path_factory: pytest.TempPathFactory, teacher: dict[str, object]) -> bytes:
    return student(run(experiment(tmp_path_factory.mktemp("kd") / "run", "kd", **OPTIONS, teacher=teacher)).folder)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_its_own_student_and_resumes_exactly(
    name: str, tmp_path: Path, teacher: dict[str, object], plain_kd: bytes
) -> None:
    changes = {**OPTIONS, "teacher": teacher, **METHODS[name]}
    whole = run(experiment(tmp_path / "whole", **changes))
    assert (student(whole.folder) == plain_kd) == (name == "kd")
    for step in KILLS:
        with pytest.raises(Interrupted):
            run(experiment(tmp_path / "parts", **changes), Killed("student", step))
    parts = run(experiment(tmp_path / "parts", **changes))
    assert student(parts.folder) == student(whole.folder)
    assert parts.student == whole.student
