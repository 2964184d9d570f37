"""`teacher: [..]`: several trained networks as one teacher, which says the mean of what they say."""

from __future__ import annotations

import shutil

import pytest
import torch

import distail
from distail.config.schema import Experiment
from distail.errors import CheckpointError, ConfigError
from distail.evaluation.predictions import load_predictions
from distail.runner.checks import teacher_model
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from helpers.whole_runs import Killed, experiment, run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two trained networks: folders of their runs."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, model in (("a", "resnet8"), ("b", "resnet20")):
        run(experiment(folder / name, "ce", name=name, student=model, teacher=None, role="teacher"))
    return folder


def ensemble(teachers, *names):
    models = {"a": "same", "b": "resnet20"}
    return [{"model": models[name], "checkpoint": str(teachers / name / "student.safetensors")} for name in names]


def logits(folder, which):
    return getattr(load_predictions(folder / "predictions.safetensors"), which)


def test_the_teacher_says_the_mean_of_what_its_members_say(teachers, tmp_path):
    run(experiment(tmp_path / "run", "kd", teacher=ensemble(teachers, "a", "b")))
    mean = (logits(teachers / "a", "logits") + logits(teachers / "b", "logits")) / 2
    torch.testing.assert_close(logits(tmp_path / "run", "teacher_logits"), mean, rtol=1e-4, atol=1e-4)

    probabilities = {"members": ensemble(teachers, "a", "b"), "average": "probabilities"}
    run(experiment(tmp_path / "shares", "kd", teacher=probabilities))
    mean = (logits(teachers / "a", "logits").softmax(1) + logits(teachers / "b", "logits").softmax(1)) / 2
    found = logits(tmp_path / "shares", "teacher_logits").softmax(1)
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)


def test_a_ensemble_of_one_is_that_teacher_and_trains_the_same_student(teachers, tmp_path):
    alone, listed = ensemble(teachers, "a")[0], ensemble(teachers, "a")
    students = []
    for name, teacher in (("alone", alone), ("listed", listed)):
        run(experiment(tmp_path / name, "bkd", teacher=teacher))
        students.append(logits(tmp_path / name, "logits"))
    torch.testing.assert_close(*students, rtol=1e-4, atol=1e-4)


def test_a_stopped_run_goes_on_without_its_teachers_files_and_a_kept_teacher_can_be_audited(teachers, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(teachers, moved)
    whole = experiment(tmp_path / "whole", "kd", teacher=ensemble(teachers, "a", "b"))
    run(whole)
    stopped = experiment(tmp_path / "stopped", "kd", teacher=ensemble(moved, "a", "b"))
    with pytest.raises(Interrupted):
        run(stopped, Killed("student", 4))
    shutil.rmtree(moved)
    run(stopped)
    assert torch.equal(logits(tmp_path / "whole", "logits"), logits(tmp_path / "stopped", "logits"))

    from distail.audit.target import load_target

    found = load_target(tmp_path / "stopped", reporter=Silent())
    assert found.logits.isfinite().all()


def test_the_same_network_keeps_its_options_among_several():
    mlp = {"name": "mlp", "hidden": 16, "depth": 1}
    members = [{"model": "same", "checkpoint": f"{name}.safetensors"} for name in "ab"]
    read = Experiment.from_mapping(experiment("run", "kd", student={"model": mlp}, teacher=members))
    assert [(each.name, each.options) for each in teacher_model(read).members] == [
        ("mlp", read.student.model.options)
    ] * 2


def test_another_ensemble_is_refused_and_so_is_one_that_cannot_teach(teachers, tmp_path):
    with pytest.raises(Interrupted):
        run(experiment(tmp_path / "run", "kd", teacher=ensemble(teachers, "a", "b")), Killed("student", 4))
    (tmp_path / "run" / "teacher.safetensors").unlink()
    other = experiment(tmp_path / "run", "kd", teacher=ensemble(teachers, "a", "b"))
    shutil.copy(teachers / "a" / "student.safetensors", tmp_path / "b.safetensors")
    other["teacher"][1] = {"model": "same", "checkpoint": str(tmp_path / "b.safetensors")}
    with pytest.raises((CheckpointError, ConfigError)):
        run(other)

    untrained = [{"model": "resnet8"}, {"model": "resnet8"}]
    with pytest.raises(ConfigError) as refused:
        distail.run(experiment(tmp_path / "none", "kd", teacher=untrained))
    assert str(refused.value).count("checkpoint") >= 2
    with pytest.raises(ConfigError, match="features"):
        distail.run(experiment(tmp_path / "features", "krdistill", teacher=ensemble(teachers, "a", "b")))
