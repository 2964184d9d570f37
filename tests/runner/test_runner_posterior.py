"""What a run tells of a teacher that has given its class shares away already."""

import pytest

import distail
from distail.runner.plan import plan_run
from distail.runner.teach import teach
from distail.training.progress import Silent

pytestmark = pytest.mark.integration


def experiment(folder, **changes):
    return {
        "name": "posterior",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": 20, "augment": [], "validation": 0},
        "teacher": {"model": "resnet8", "supervised": "balanced_softmax"},
        "student": "resnet8",
        "method": "distail",
        "training": {"epochs": 1, "batch_size": 256},
        "trainer": {"device": "cpu"},
        **changes,
    }


def told(config):
    return [warning for warning in plan_run(config).warnings if "taken off twice" in warning]


def test_a_balanced_teacher_that_is_debiased(tmp_path):
    assert told(experiment(tmp_path / "trained here"))
    assert not told(experiment(tmp_path / "natural", teacher={"model": "resnet8"}))
    trained = experiment(tmp_path / "teacher", teacher=None, method={"name": "ce", "supervised": "balanced_softmax"})
    weights = distail.run(trained, reporter=Silent()).folder / "student.safetensors"
    loaded = experiment(tmp_path / "loaded", teacher={"model": "resnet8", "checkpoint": str(weights)})
    assert told(loaded)
    distail.run(loaded, reporter=Silent())
    weights.unlink()
    distail.run(loaded, reporter=Silent())  # finished: nothing of the file is wanted


def test_a_stored_balanced_teacher_that_is_debiased(tmp_path):
    trained = experiment(tmp_path / "teacher", teacher=None, method={"name": "ce", "supervised": "balanced_softmax"})
    run = distail.run(trained, reporter=Silent())
    answers = tmp_path / "answers.safetensors"
    teach(run.folder, output=answers, reporter=Silent())
    assert told(experiment(tmp_path / "run", teacher={"logits": str(answers)}))
