"""The K largest probabilities as probabilities of all classes, against plain loops in numpy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.functional import expand_top_k


def oracle(log_values, indices, shares):
    """One row, float64: what the K leave, over the others by their share."""
    found = np.zeros(len(shares))
    for log_p, c in zip(log_values, indices, strict=True):
        found[c] = np.exp(log_p)
    rest = 1 - found.sum()
    others = [c for c in range(len(shares)) if c not in set(indices)]
    for c in others:
        found[c] = rest * shares[c] / sum(shares[other] for other in others)
    return found


@st.composite
def rows(draw):
    classes = draw(st.integers(2, 12))
    k = draw(st.integers(1, classes))
    logits = np.array(draw(st.lists(st.floats(-30, 30), min_size=classes, max_size=classes)))
    shares = np.array(draw(st.lists(st.integers(1, 500), min_size=classes, max_size=classes)), dtype=float)
    log_p = logits - np.logaddexp.reduce(logits)
    kept = np.argsort(-log_p)[:k]
    return log_p[kept], kept, shares


@given(rows())
def test_the_rest_is_spread_and_all_sum_to_one(row):
    log_values, indices, shares = row
    found = expand_top_k(torch.tensor(log_values[None]), torch.tensor(indices[None]), torch.tensor(shares)).double()
    probabilities = found.exp()[0].numpy()
    np.testing.assert_allclose(probabilities, oracle(log_values, indices, shares), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-6)
    assert torch.isfinite(found).all()


def test_the_rest_of_a_teacher_that_is_nearly_sure_is_no_rounding_error():
    logits = torch.tensor([[40.0, 10.0, 9.0, 0.0, -1.0]], dtype=torch.float64)
    log_p = logits.log_softmax(1)
    values, indices = log_p.topk(2)
    found = expand_top_k(values.float(), indices, torch.ones(5)).double().exp()
    rest = log_p.exp()[0, 2:].sum()
    assert 0 < rest < 1e-12
    torch.testing.assert_close(found[0, 2:].sum(), rest, rtol=1e-2, atol=0)
