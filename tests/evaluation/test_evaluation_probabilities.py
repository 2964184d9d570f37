"""Outputs that are probabilities, percentages or sigmoids, and logits that look a little like them."""

from __future__ import annotations

import pytest
import torch

from distail.evaluation.probabilities import kind_of_probabilities, probabilities_sentence

LOGITS = 5 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda logits: logits.softmax(1), "probabilities"),
        (lambda logits: (logits.softmax(1) * 100).round(decimals=1), "percentages"),
        (torch.sigmoid, "sigmoids"),
        (lambda logits: logits, None),
        (lambda logits: logits.log_softmax(1), None),
        (lambda logits: logits.relu(), None),
        (torch.zeros_like, None),
        (lambda logits: 0.4 + 0.01 * logits.sigmoid(), None),
    ],
)
def test_each_kind(make, kind, dtype):
    assert kind_of_probabilities(make(LOGITS).to(dtype)) == kind


def test_what_is_no_table_of_numbers():
    for value in (torch.zeros(0, 3), torch.zeros(3), torch.ones(3, 1), torch.ones(2, 2, dtype=torch.int64)):
        assert kind_of_probabilities(value) is None


def test_the_sentence_says_what_to_leave_out():
    assert "last sigmoid" in probabilities_sentence("the teacher", "sigmoids")
    assert "last softmax" in probabilities_sentence("the teacher", "percentages")
