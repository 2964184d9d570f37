"""The cosine classifier against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.errors import ModelError
from distail.models.layers import CosineClassifier, create_classifier


def cosine_oracle(features_BD: np.ndarray, weight_CD: np.ndarray, scale: float) -> np.ndarray:
    logits_BC = np.zeros((len(features_BD), len(weight_CD)))
    for b, feature in enumerate(features_BD):
        for c, row in enumerate(weight_CD):
            logits_BC[b, c] = scale * (feature @ row) / (np.sqrt(feature @ feature) * np.sqrt(row @ row))
    return logits_BC


@settings(deadline=None, max_examples=30)
@given(batch=st.integers(1, 5), width=st.integers(1, 9), classes=st.integers(1, 6), scale=st.floats(0.5, 64))
def test_logits_are_scaled_cosines(batch, width, classes, scale):
    torch.manual_seed(batch * 100 + width * 10 + classes)
    head = CosineClassifier(width, classes, scale).double()
    torch.nn.init.normal_(head.weight, std=3.0)
    features_BD = torch.randn(batch, width, dtype=torch.float64)
    expected_BC = cosine_oracle(features_BD.numpy(), head.weight.detach().numpy(), scale)
    np.testing.assert_allclose(head(features_BD).detach().numpy(), expected_BC, rtol=1e-9, atol=1e-9)


def test_raw_cosines_are_logits_over_scale():
    head = CosineClassifier(4, 3).double()
    features_BD = 5 * head.weight.detach()
    cosines_BC = head(features_BD) / head.scale
    assert head.scale == 30.0
    np.testing.assert_allclose(cosines_BC.diag().detach().numpy(), 1.0)


def test_zero_features_give_zero_logits_and_finite_gradients():
    head = CosineClassifier(4, 3)
    features_BD = torch.zeros(2, 4, requires_grad=True)
    logits_BC = head(features_BD)
    logits_BC.sum().backward()
    assert torch.equal(logits_BC, torch.zeros(2, 3))
    assert torch.isfinite(features_BD.grad).all()


def test_gradients_agree_with_differences():
    head = CosineClassifier(4, 3).double()
    features_BD = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (features_BD,))


def test_starts_with_unit_rows_in_all_directions():
    torch.manual_seed(0)
    head = CosineClassifier(64, 100)
    np.testing.assert_allclose(head.weight.norm(dim=1).detach().numpy(), 1.0, rtol=1e-5)
    assert abs(head.weight.mean().item()) < 0.01
    assert (head.in_features, head.out_features) == (64, 100)
    assert set(head.state_dict()) == {"weight"}


def test_unknown_classifier_is_told():
    with pytest.raises(ModelError, match=r"'cos'.*cosine"):
        create_classifier("cos", 4, 3)
