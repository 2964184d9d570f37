"""The repair that an audit recommends: found by what it does to the targets, within what the head may lose."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail import create_method
from distail.audit.recommendation import command, recommend, sentence
from distail.config.reading import apply_overrides
from distail.methods.presets import read_composition


def biased_teacher(seed, counts, images_a_class=40, signal=1.0, noise=1.0):
    """A teacher that knows each class equally well, and the shares of the classes on top of that."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(len(counts)).repeat_interleave(images_a_class)
    logits = noise * torch.randn(len(target), len(counts), generator=generator, dtype=torch.float64)
    logits[torch.arange(len(target)), target] += signal
    return logits + torch.tensor(counts, dtype=torch.float64).div(sum(counts)).log(), target


def favored(logits, target, chosen):
    """Percent of the chosen classes' images at whose label no other entry is larger, with plain loops."""
    right = [z[y] >= max(z) for z, y in zip(logits.tolist(), target.tolist(), strict=True) if y in chosen]
    return 100 * sum(right) / len(right)


def test_a_teacher_of_plain_training_is_repaired_by_what_it_learned():
    counts = [400, 200, 100, 50, 20, 5]
    logits, target = biased_teacher(0, counts, signal=4.0)
    found = recommend(logits, target, tuple(counts), keep_head=60.0)
    assert found["method"]["targets"] == [{"name": "debias", "tau": 1.0}]
    assert found["method"]["supervised"] == "balanced_softmax"
    assert found["after"]["tail"] > found["before"]["tail"]
    assert found["before"]["head"] == pytest.approx(favored(logits, target, {0, 1}))
    unbiased = logits - torch.tensor(counts, dtype=torch.float64).div(sum(counts)).log()
    assert found["after"]["tail"] == pytest.approx(favored(unbiased, target, {4, 5}))
    means = [favored(unbiased, target, {c}) for c in range(6)]
    assert found["after"]["average_class"] == pytest.approx(np.mean(means))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.floats(0, 100), factor=st.integers(1, 500), signal=st.floats(0, 6))
def test_what_must_be_kept_of_the_head_is_kept_and_no_class_average_falls(seed, keep, factor, signal):
    counts = [max(1, round(500 / factor ** (c / 8))) for c in range(9)]
    found = recommend(*biased_teacher(seed, counts, 10, signal), tuple(counts), keep_head=keep)
    assert found["after"]["head"] >= keep / 100 * found["before"]["head"] - 1e-9
    assert found["after"]["average_class"] >= found["before"]["average_class"]
    create_method(found["method"], class_counts=counts)
    assert sentence(found)


def test_equal_classes_need_no_repair():
    found = recommend(*biased_teacher(1, [30] * 6), (30,) * 6)
    assert found["method"] == {"name": "kd"}
    assert found["before"] == found["after"]


def test_a_tiny_tail_is_not_bought_with_the_head():
    """Where a teacher was trained balanced the class shares say nothing of it: removing them only hurts the head."""
    counts = [1000, 1000, 1000, 1000, 2, 2]
    logits, target = biased_teacher(2, counts, signal=2.0)
    trained_balanced = logits - torch.tensor(counts, dtype=torch.float64).div(sum(counts)).log()
    found = recommend(trained_balanced, target, tuple(counts), keep_head=95.0)
    strength = found["method"].get("targets", [{"tau": 0.0}])[0]["tau"]
    assert strength < 1.0


def test_what_a_balanced_teacher_knows_is_not_taken_off_again():
    counts = (400, 200, 100, 50, 20, 5)
    logits, target = biased_teacher(0, counts, signal=4.0)
    found = recommend(logits, target, counts, posterior="balanced")
    assert (found["reason"], found["before"]) == ("balanced_teacher", found["after"])
    composition = read_composition(found["method"])
    assert composition.posterior_warning("balanced") is None
    assert composition.correction_warning("balanced") is None
    assert "twice" in sentence(found)
    for other in ("natural", "mixed", None):
        assert recommend(logits, target, counts, 60.0, other) == recommend(logits, target, counts, 60.0)


def test_one_reason_is_told_where_no_repair_is_recommended():
    counts = (400, 200, 100, 50, 20, 5)
    target = torch.arange(60) % 6
    logits = 0.1 * torch.eye(6, dtype=torch.float64)[target]  # right, by less than any repair moves a target
    said = []
    for reason, sizes, keep in (
        ("equal_classes", (30,) * 6, 0.0),
        ("keep_head", counts, 80.0),
        ("no_gain", counts, 0.0),
    ):
        found = recommend(logits, target, sizes, keep)
        assert (found["reason"], found["method"], found["after"]) == (reason, {"name": "kd"}, found["before"])
        said.append(sentence(found))
    assert len(set(said)) == 3


def test_a_repair_that_changes_nothing_on_the_images_is_not_called_better():
    counts = (400, 200, 100, 50, 20, 5)
    target = torch.arange(60) % 6
    logits = 40.0 * torch.eye(6, dtype=torch.float64)[target]  # right, by more than any repair moves a target
    found = recommend(logits, target, counts)
    assert (found["reason"], found["after"]) == ("repair", found["before"])
    assert "do not show which one helps" in sentence(found)
    assert "from 100.0 to 100.0" not in sentence(found)


def test_a_gain_within_the_noise_of_the_images_is_no_evidence():
    counts = (400, 200, 100, 50, 20, 5)
    teacher = {images: biased_teacher(0, counts, images, signal=2.0, noise=0.5) for images in (2, 300)}
    few, many = (recommend(*answers, counts, keep_head=0.0) for answers in teacher.values())
    (logits, target), tau = teacher[300], many["method"]["targets"][0]["tau"]
    repaired = logits - tau * torch.tensor(counts, dtype=torch.float64).div(sum(counts)).log()
    change = ((one.argmax(1) == target).double().numpy() for one in (repaired, logits))
    change = next(change) - next(change)
    classes = [change[target.numpy() == label] for label in range(6)]
    expected = 100 * np.sqrt(sum(np.var(own, ddof=1) / len(own) for own in classes)) / 6
    assert many["standard_error"] == pytest.approx(expected)
    assert "want of evidence" not in sentence(many)
    within = {**few, "standard_error": few["after"]["average_class"] - few["before"]["average_class"]}
    assert "want of evidence" in sentence(within)


def test_without_images_of_the_head_the_bound_is_said_to_be_unchecked():
    counts = (400, 200, 100, 50, 20, 5)
    logits, target = biased_teacher(0, counts, signal=4.0)
    without = target > 1
    found = recommend(logits[without], target[without], counts)
    assert (found["reason"], found["before"]["head"]) == ("repair", None)
    assert "No image of the head was audited" in sentence(found)
    assert "80 %" not in sentence(found)


def test_the_command_is_one_that_a_shell_takes_apart_again():
    found = recommend(*biased_teacher(0, [400, 100, 10], signal=3.0), (400, 100, 10), keep_head=0.0)
    path = "runs/it's a: é, 50/teacher.safetensors"
    words = shlex.split(command(found["method"], "my.yaml", {"teacher.checkpoint": path, "teacher.logits": None}))
    assert words[:3] == ["distail", "run", "my.yaml"]
    assert json.loads(words[-1].removeprefix("method=")) == found["method"]
    taken = apply_overrides({"teacher": None}, words[3:])
    assert taken["teacher"] == {"checkpoint": path, "logits": None}
