"""What a run tells of a teacher that has given its class shares away already."""

import numpy as np
import pytest
from safetensors.torch import load_file

import distail
from distail.config.schema import Experiment
from distail.runner.plan import plan_run
from distail.runner.posterior import posterior_notes, student_posterior
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
    return [warning for warning in plan_run(config).warnings if "removed twice" in warning]


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


def test_what_a_loaded_teacher_learned_decides_what_its_student_learns(tmp_path):
    """Its own file says it, for one teacher and for several, for weights and for answers."""
    files = {}
    for name, supervised in (("natural", "ce"), ("balanced", "balanced_softmax")):
        trained = experiment(tmp_path / name, teacher=None, method={"name": "ce", "supervised": supervised})
        folder = distail.run(trained, reporter=Silent()).folder
        files[name] = {"model": "resnet8", "checkpoint": str(folder / "student.safetensors")}
        answers = teach(folder, output=tmp_path / f"{name}.safetensors", reporter=Silent()).path
        np.savez(tmp_path / f"{name}.npz", **load_file(answers), posterior=name)
    for method, teacher, learned, words in (
        ("kd", files["natural"], "natural", None),
        ("kd", files["balanced"], "mixed", "its teacher at equal class priors"),
        ("dive", files["natural"], "mixed", "its teacher aims at the class priors"),
        ("dive", files["balanced"], "balanced", None),
        ("kd", [files["natural"], files["balanced"]], "mixed", None),
        ("distail", [files["natural"], files["balanced"]], "balanced", "in part they are removed twice"),
        ("distail", [files["balanced"], files["balanced"]], "balanced", "removed twice"),
        ("kd", {"logits": str(tmp_path / "balanced.npz")}, "mixed", "its teacher at equal class priors"),
        ("kd", {"logits": str(tmp_path / "natural.npz")}, "natural", None),
    ):
        config = Experiment.from_mapping(experiment(tmp_path / "run", method=method, teacher=teacher))
        assert student_posterior(config) == learned, (method, teacher)
        told = posterior_notes(config)
        assert len(told) == (words is not None), (method, teacher, told)
        assert words is None or words in told[0]
