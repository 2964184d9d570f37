"""What is told before training where class priors are corrected twice: by terms, samplers, a stage, or adjusting."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from distail.config.schema import Experiment
from distail.data.arrays import LabeledArrays
from distail.runner.posterior import posterior_notes, student_posterior
from helpers.whole_runs import experiment

SAMPLED = {"sampler": "class_balanced"}
BALANCED = {"name": "ce", "supervised": "balanced_softmax"}
REPAIRED = {"supervised": "balanced_softmax", "targets": ["debias"]}


def config(method="ce", *, data=None, stage=None, teacher=None):
    training = {"epochs": 4, "classifier_stage": stage and {"epochs": 1, **stage}}
    changes = {"data": {"name": "digits", "imbalance_factor": 20, **(data or {})}, "training": training}
    return Experiment.from_mapping(experiment("run", method, teacher=teacher, **changes))


@pytest.mark.parametrize(
    ("method", "changes", "posterior", "told"),
    [
        ("ce", {"data": SAMPLED}, "balanced", []),
        (BALANCED, {}, "balanced", []),
        (BALANCED, {"data": SAMPLED}, "mixed", ["removed twice"]),
        (BALANCED, {"data": {"sampler": "square_root"}}, "mixed", ["in part removed twice"]),
        ({"name": "ce", "supervised": {"name": "logit_adjusted", "tau": 0}}, {"data": SAMPLED}, "balanced", []),
        # The stage decides, by its own terms and sampler or by those that it inherits.
        ("ce", {"stage": {"supervised": "balanced_softmax"}}, "balanced", []),
        ("ce", {"stage": {"sampler": "class_balanced"}}, "balanced", []),
        (
            "ce",
            {"stage": {"supervised": "balanced_softmax", "sampler": "class_balanced"}},
            "mixed",
            ["in the classifier stage: the sampler draws rare classes more often"],
        ),
        (BALANCED, {"stage": {"sampler": "class_balanced"}}, "mixed", ["in the classifier stage: the sampler"]),
        (BALANCED, {"data": SAMPLED, "stage": {"sampler": "instance"}}, "balanced", ["before the classifier stage"]),
        (
            BALANCED,
            {"data": SAMPLED, "stage": {"learning_rate": 0.05}},
            "mixed",
            ["the sampler draws rare classes more often"],
        ),
        # With a teacher.
        ("kd", {"stage": {"method": REPAIRED}, "teacher": "same"}, "balanced", []),
        ("kd", {"stage": {"supervised": "balanced_softmax"}, "teacher": "same"}, "mixed", ["in the classifier stage"]),
        ("kd", {"data": SAMPLED, "teacher": "same"}, "balanced", []),
        ("kd", {"stage": {"sampler": "class_balanced"}, "teacher": "same"}, "mixed", ["ce with this sampler"]),
        ("dive", {"data": SAMPLED, "teacher": "same"}, "mixed", ["of the teacher: the sampler", "the sampler draws"]),
        # Adjusted after training as well.
        ({"name": "ce", "adjust": 1}, {}, "natural", []),
        ({**BALANCED, "adjust": 0}, {}, "balanced", []),
        ({**BALANCED, "adjust": 1}, {}, "balanced", ["method.adjust is 1, but the student"]),
        ({**BALANCED, "adjust": "auto"}, {"data": {"validation": 0.1}}, "balanced", ["method.adjust is auto"]),
        (
            {"name": "ce", "supervised": {"name": "logit_adjusted", "tau": 0.25}, "adjust": 0.75},
            {},
            "mixed",
            ["in part already: adjusting it by more than what is left"],
        ),
        (
            {"name": "ce", "supervised": {"name": "logit_adjusted", "tau": 0.5}},
            {"data": SAMPLED},
            "mixed",
            ["they are in part removed twice"],
        ),
        ({"name": "ce", "adjust": 1}, {"data": SAMPLED}, "balanced", ["adjusting it again corrects the priors twice"]),
        ({"name": "ce", "adjust": 1}, {"stage": {"supervised": "balanced_softmax"}}, "balanced", ["method.adjust"]),
    ],
)
def test_class_priors_that_are_corrected_twice_are_told(method, changes, posterior, told):
    experiment = config(method, **changes)
    assert student_posterior(experiment) == posterior
    notes = posterior_notes(experiment)
    assert len(notes) == len(told), notes
    assert all(words in note for words, note in zip(told, notes, strict=True)), notes


def test_the_documented_classifier_stage_corrects_once():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    [example] = [yaml.safe_load(block) for block in blocks if "classifier_stage" in block]
    assert posterior_notes(Experiment.from_mapping(example)) == []


WEIGHTS = {"balanced": 1.0, "root": 0.5, "none": 0.0, "inverted": 2.0}


def weighted(power):
    """Data of 300, 60 and 10 examples, with weights by a power of the class counts."""
    counts = torch.tensor([300, 60, 10])
    labels = torch.repeat_interleave(torch.arange(3), counts)
    train = LabeledArrays(torch.zeros(370, 2), labels, weights=(1 / counts[labels].double() ** power).float())
    return SimpleNamespace(train=train, class_counts=tuple(counts.tolist()))


@pytest.mark.parametrize(
    ("method", "weights", "posterior", "told"),
    [
        ("ce", "none", "natural", []),
        ("ce", "root", "mixed", []),
        ("ce", "balanced", "balanced", []),
        (BALANCED, "balanced", "mixed", ["the examples of rare classes weigh more"]),
        (BALANCED, "root", "mixed", ["in part removed twice"]),
        (BALANCED, "none", "balanced", []),
        ({"name": "ce", "adjust": 1}, "balanced", "balanced", ["method.adjust is 1"]),
    ],
)
def test_weights_of_examples_that_balance_the_classes_count_as_a_correction(method, weights, posterior, told):
    experiment, data = config(method), weighted(WEIGHTS[weights])
    assert student_posterior(experiment, data) == posterior
    notes = posterior_notes(experiment, data)
    assert len(notes) == len(told), notes
    assert all(words in note for words, note in zip(told, notes, strict=True)), notes


@pytest.mark.parametrize("counts", [(520, 480), (416, 300), (300, 60, 2), (500, 300, 200, 100, 50, 20, 10, 5)])
def test_weights_that_have_nothing_to_do_with_the_class_are_none_of_its_corrections(counts):
    draw = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    found = []
    for _ in range(100):
        weights = torch.randn(len(labels), generator=draw).exp()
        train = LabeledArrays(torch.zeros(len(labels), 2), labels, weights=weights)
        found.append(student_posterior(config("ce"), SimpleNamespace(train=train, class_counts=counts)))
    assert found.count("natural") >= 97


def test_weights_that_balance_the_classes_are_seen_under_others():
    data = weighted(1.0)
    draw = torch.Generator().manual_seed(0)
    weights = data.train.weights * torch.randn(370, generator=draw).mul(0.3).exp()
    data.train = LabeledArrays(torch.zeros(370, 2), data.train.labels, weights=weights)
    assert student_posterior(config("ce"), data) == "balanced"


def test_a_teacher_of_weighted_examples_leaves_nothing_for_debias():
    experiment = config("distail", teacher="same")
    notes = posterior_notes(experiment, weighted(1.0))
    assert any("already aims at equal class priors" in note for note in notes), notes
