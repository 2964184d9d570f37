from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.evaluation.groups import thirds
from distail.evaluation.teacher_bias import error_flow


@given(st.integers(0, 1000), st.integers(1, 120), st.integers(1, 30))
def test_the_flow_agrees_with_plain_loops(seed: int, samples: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=(samples, classes)), rng.integers(0, classes, samples)
    counts = rng.integers(1, 300, classes).tolist()
    found = error_flow(torch.from_numpy(logits).argmax(1), torch.from_numpy(target), counts)
    groups = thirds(counts)
    pairs = [(int(y), int(np.argmax(row))) for row, y in zip(logits, target, strict=True)]
    for name, members in groups.items():
        own = [(y, p) for y, p in pairs if y in members]
        if not own:
            assert found["flow"][name] is None
            continue
        expected = {"correct": 100 * sum(y == p for y, p in own) / len(own)}
        for into, others in groups.items():
            expected[into] = 100 * sum(y != p and p in others for y, p in own) / len(own) if others else None
        assert found["flow"][name] == {k: None if v is None else pytest.approx(v) for k, v in expected.items()}
        assert sum(v for v in found["flow"][name].values() if v is not None) == pytest.approx(100)
    confused = Counter(p for y, p in pairs if y != p and y in groups["tail"])
    ranked = sorted(confused.items(), key=lambda item: (-item[1], item[0]))[:10]
    total = confused.total()
    assert found["top_confusions"] == [
        {"class": c, "errors": errors, "share": pytest.approx(100 * errors / total)} for c, errors in ranked
    ]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_errors_within_the_tail_are_told_from_right_answers() -> None:
    counts = [90, 80, 70, 60, 50, 40]  # the tail is classes 4 and 5
    found = error_flow(torch.tensor([4, 5, 4, 0]), torch.tensor([4, 4, 5, 5]), counts)
    assert found["flow"]["tail"] == {"correct": 25.0, "head": 25.0, "medium": 0.0, "tail": 50.0}
    assert [s["class"] for s in found["top_confusions"]] == [0, 4, 5]


def test_groups_without_classes_or_samples_are_none() -> None:
    single = error_flow(torch.tensor([0, 0]), torch.tensor([0, 0]), [7])
    assert sorted(name for name, value in single["flow"].items() if value is None) == sorted(
        name for name, members in thirds([7]).items() if not members
    )
    assert single["top_confusions"] == []
    without_tail = error_flow(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), [300, 50, 5])
    assert without_tail["flow"]["tail"] is None
    two = error_flow(torch.tensor([0, 1]), torch.tensor([1, 1]), [9, 5])
    empty = [name for name, members in thirds([9, 5]).items() if not members]
    assert [two["flow"]["tail"][name] for name in empty] == [None] * len(empty)
