from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.evaluation.calibration import expected_calibration_error, reliability_bins, top_confidence


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 120), st.integers(2, 6), st.integers(1, 20))
def test_bins_agree_with_a_plain_loop(seed: int, samples: int, classes: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    logits, target = 3 * rng.normal(size=(samples, classes)), rng.integers(0, classes, samples)
    result = reliability_bins(torch.from_numpy(logits), torch.from_numpy(target), bins)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for i, found in enumerate(result):
        inside = [n for n in range(samples) if found.lower < probabilities[n].max() <= found.upper]
        assert (found.lower, found.upper) == (pytest.approx(i / bins), pytest.approx((i + 1) / bins))
        assert found.count == len(inside)
        if inside:
            assert found.confidence == pytest.approx(np.mean([probabilities[n].max() for n in inside]))
            assert found.accuracy == pytest.approx(np.mean([logits[n].argmax() == target[n] for n in inside]))
        else:
            assert found.confidence is None
            assert found.accuracy is None
    assert sum(found.count for found in result) == samples


def test_certain_predictions_fall_into_the_last_bin() -> None:
    bins = reliability_bins(torch.tensor([[1e6, -1e6]]), torch.tensor([0]))
    assert [item.count for item in bins] == [0] * 14 + [1]
    assert bins[-1].confidence == 1.0


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    bins = reliability_bins(torch.zeros(1, 2), torch.tensor([0]), bins=2)
    assert [item.count for item in bins] == [1, 0]


def test_perfect_predictions_have_no_error_and_certain_mistakes_all_of_it() -> None:
    certain = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]])
    assert expected_calibration_error(certain, torch.tensor([0, 0])) == 0.0
    assert expected_calibration_error(certain, torch.tensor([1, 1])) == 100.0


def test_a_known_case() -> None:
    logits = torch.log(torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]], dtype=torch.float64))
    assert expected_calibration_error(logits, torch.tensor([0, 0, 1, 1])) == pytest.approx(25.0)


def test_confidence_is_computed_in_double_and_in_blocks() -> None:
    logits = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)).half()
    confidence = top_confidence(logits)
    assert confidence.dtype == torch.float64
    torch.testing.assert_close(confidence, logits.double().softmax(1).amax(1), rtol=1e-12, atol=0)
    assert math.isclose(float(top_confidence(torch.tensor([[60000.0, -60000.0]]).half())), 1.0)
