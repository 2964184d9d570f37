from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.audit.audit import audit
from distail.audit.sample_weights import StudentHeads
from distail.audit.summary import summary

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def leaves(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, int | float):
        yield value


def written(value: float) -> set[str]:
    return {f"{value:.1f}", f"{value:.2f}", f"{value:,g}", f"{value:,}"}


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 9), st.booleans(), st.sampled_from([None, 2.5]))
def test_every_number_of_the_summary_is_a_number_of_the_audit(
    seed: int, samples: int, classes: int, with_student: bool, temperature: float | None
) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(3 * rng.normal(size=(samples, classes)))
    target = torch.from_numpy(rng.integers(0, classes, samples))
    counts = rng.integers(1, 400, classes).tolist()
    student = StudentHeads(logits.flip(1), logits.roll(1, 1)) if with_student else None
    names = [f"kind-{'abcdefghi'[c]}" for c in range(classes)]  # no digits of their own
    found = audit(logits, target, counts, class_names=names, temperature=temperature, student=student)
    known = {text for value in leaves(found) for text in written(value)}
    sentences = summary(found)
    for sentence in sentences:
        numbers = NUMBER.findall(sentence.replace("T^2", "T"))
        assert set(numbers) <= known, (sentence, set(numbers) - known)
        assert numbers, sentence
        assert not re.search(r"None|nan|inf", sentence)
        assert sentence.endswith(".")


def test_a_summary_names_the_top_confusions_of_the_tail() -> None:
    target = torch.tensor([0, 1, 2, 2, 2, 2])
    found = audit(5 * torch.eye(3)[[0, 1, 0, 0, 1, 2]], target, [300, 50, 5], class_names=["dog", "cat", "bee"])
    text = " ".join(summary(found))
    assert "tail images: dog (66.7 %) and cat (33.3 %)." in text
    assert "DR-KD would swap the targets of 3 of 6 images" in text
    assert "not the paper's" in text


@pytest.mark.parametrize("labels", [[0, 0], [2, 2], [1, 1]])
def test_groups_without_images_are_left_out(labels: list[int]) -> None:
    text = " ".join(summary(audit(3 * torch.eye(3)[[0, 2]], torch.tensor(labels), [300, 50, 5])))
    assert "None" not in text
