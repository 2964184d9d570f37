from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.errors import DataError
from distail.evaluation.metrics import mean_probability, recall_by_quarter


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(4, 60))
def test_quarters_agree_with_a_plain_ranking(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    recalls = [float(value) if value > 10 else None for value in rng.uniform(0, 100, classes)]
    favor = rng.integers(0, 5, classes) / 5  # ties on purpose
    ranked = sorted(range(classes), key=lambda c: (-favor[c], c))
    result = recall_by_quarter(recalls, favor.tolist())
    for i, name in enumerate(("most", "second", "third", "least")):
        part = ranked[round(i * classes / 4) : round((i + 1) * classes / 4)]
        known = [recalls[c] for c in part if recalls[c] is not None]
        assert result[name] == (pytest.approx(np.mean(known)) if known else None)


def test_a_hundred_classes_make_quarters_of_twenty_five() -> None:
    result = recall_by_quarter([float(c // 25) for c in range(100)], torch.linspace(1, 0, 100))
    assert result == {"most": 0.0, "second": 1.0, "third": 2.0, "least": 3.0}


def test_fewer_than_four_classes_leave_quarters_empty() -> None:
    assert list(recall_by_quarter([7.0], [1.0]).values()).count(None) == 3


def test_mean_probability_is_the_mean_softmax() -> None:
    logits = torch.randn(9000, 5, generator=torch.Generator().manual_seed(0))
    expected = np.exp(logits.double().numpy())
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(mean_probability(logits).numpy(), expected.mean(0), rtol=1e-12)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="recalls of 2 classes"):
        recall_by_quarter([1.0, 2.0], [0.5])
    with pytest.raises(DataError, match="finite"):
        recall_by_quarter([1.0, 2.0], [0.5, float("nan")])
