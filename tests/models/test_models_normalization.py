"""The conversion between normalizations against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distail.errors import ModelError
from distail.models import InputNormalization


def test_against_undoing_and_redoing():
    generator = np.random.default_rng(0)
    raw_NCHW = generator.uniform(size=(2, 3, 4, 5))
    mean_from, std_from, mean_to, std_to = generator.uniform(0.1, 0.9, size=(4, 3))
    given = (raw_NCHW - mean_from[:, None, None]) / std_from[:, None, None]
    expected = (raw_NCHW - mean_to[:, None, None]) / std_to[:, None, None]
    actual = InputNormalization(mean_from, std_from, mean_to, std_to).double()(torch.from_numpy(given))
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)


def test_same_normalization_changes_nothing_and_nothing_is_stored():
    convert = InputNormalization([0.4, 0.5], [0.2, 0.3], [0.4, 0.5], [0.2, 0.3])
    images_NCHW = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(convert(images_NCHW), images_NCHW)
    assert convert.state_dict() == {}
    assert [name for name, _ in convert.named_buffers()] == ["scale", "shift"]  # so that .to(device) moves them


def test_wrong_constants_are_told():
    with pytest.raises(ModelError, match=r"'mean_from': 1"):
        InputNormalization([0.5], [0.2, 0.2], [0.5, 0.5], [0.2, 0.2])
    with pytest.raises(ModelError, match="deviations must be positive"):
        InputNormalization([0.5], [0.2], [0.5], [0.0])
