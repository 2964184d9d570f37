from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.errors import DataError
from distail.evaluation.groups import thirds
from distail.evaluation.teacher_bias import describe_bias, teacher_bias


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 150), st.integers(1, 9))
def test_the_audit_agrees_with_plain_loops(seed: int, samples: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=(samples, classes)), rng.integers(0, classes, samples)
    counts = rng.integers(1, 300, classes).tolist()
    bias = teacher_bias(torch.from_numpy(logits), torch.from_numpy(target), counts)
    predicted = [int(np.argmax(row)) for row in logits]
    assert bias["samples"] == samples
    assert bias["wrong"] == pytest.approx(100 * np.mean([p != y for p, y in zip(predicted, target, strict=True)]))
    groups = thirds(counts)
    tail_errors = [p for p, y in zip(predicted, target, strict=True) if p != y and y in groups["tail"]]
    for name, members in groups.items():
        assert bias["true_share"][name] == pytest.approx(100 * sum(y in members for y in target) / samples)
        assert bias["predicted_share"][name] == pytest.approx(100 * sum(p in members for p in predicted) / samples)
        recalls = [
            np.mean([predicted[n] == c for n in range(samples) if target[n] == c]) for c in members if c in target
        ]
        assert bias["recall"][name] == (pytest.approx(100 * np.mean(recalls)) if recalls else None)
        expected = 100 * sum(p in members for p in tail_errors) / len(tail_errors) if tail_errors else None
        assert bias["tail_errors"][name] == (None if expected is None else pytest.approx(expected))
    assert json.loads(json.dumps(bias, allow_nan=False)) == bias


def test_probabilities_and_logits_tell_the_same() -> None:
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    target, counts = torch.arange(40) % 6, [60, 50, 40, 30, 20, 10]
    assert teacher_bias(logits, target, counts) == teacher_bias(logits.softmax(1), target, counts)


def test_a_biased_teacher_is_described_with_its_numbers() -> None:
    target = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])
    predicted = torch.tensor([0, 0, 1, 0, 0, 0, 1, 2])
    bias = teacher_bias(torch.eye(3)[predicted], target, [300, 50, 5])
    sentence = describe_bias(bias)
    assert sentence == (
        "The teacher is wrong on 50.0 % of 8 samples, predicts head classes for 62.5 % of them (true share 25.0 %) "
        "and tail classes for 12.5 % (true share 50.0 %), recalls 100.0 % of the head and 25.0 % of the tail, "
        "and 66.7 % of its errors on tail samples name a head class."
    )


@pytest.mark.parametrize(
    ("predicted", "counts"),
    [([0, 1, 2], [300, 50, 5]), ([0, 0, 0], [9]), ([0, 1, 1], [9, 5])],
)
def test_the_sentence_claims_nothing_without_a_number(predicted: list[int], counts: list[int]) -> None:
    classes = len(counts)
    target = torch.arange(3) % classes
    sentence = describe_bias(teacher_bias(torch.eye(classes)[predicted], target, counts))
    assert "None" not in sentence
    assert "nan" not in sentence
    assert sentence.count(".") == len(re.findall(r"\d\.\d", sentence)) + 1
    for claim in sentence.removesuffix(".").split(", "):
        assert re.search(r"\d", claim), claim


def test_a_faultless_teacher_makes_no_tail_errors() -> None:
    assert describe_bias(teacher_bias(torch.eye(3), torch.arange(3), [300, 50, 5])).endswith(
        "recalls 100.0 % of the head and 100.0 % of the tail, and makes 0 errors on tail samples."
    )


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        teacher_bias(torch.full((2, 3), torch.nan), torch.tensor([0, 1]), [3, 2, 1])
