from __future__ import annotations

import numpy as np
import pytest
import torch

from distail.errors import DataError
from helpers.augmented import normalized

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.25, 0.3)


def every_level(channels: int) -> torch.Tensor:
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, channels, 1, 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_level_of_every_channel(memory_format: torch.memory_format) -> None:
    images = every_level(3).contiguous(memory_format=memory_format)
    before = images.clone()
    result = normalized(images, MEAN, STD)
    exact = (images.numpy() / 255.0 - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=memory_format)
    np.testing.assert_allclose(result.double().numpy(), exact, rtol=2e-6, atol=2e-6)
    assert torch.equal(images, before)


def test_any_other_strides() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8)
    assert torch.equal(
        normalized(images.flip(-1)[..., ::2], MEAN, STD), normalized(images.flip(-1), MEAN, STD)[..., ::2]
    )
    turned = images.transpose(2, 3)
    assert torch.equal(normalized(turned, MEAN, STD), normalized(turned.contiguous(), MEAN, STD))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_no_images(memory_format: torch.memory_format) -> None:
    images = torch.zeros(0, 3, 4, 4, dtype=torch.uint8).contiguous(memory_format=memory_format)
    assert normalized(images, MEAN, STD).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.5]), ([0.5] * 3, [0.5]), ([0.5] * 4, [0.5] * 4)])
def test_lengths_must_fit_the_channels(mean: list[float], std: list[float]) -> None:
    with pytest.raises(DataError, match="means"):
        normalized(every_level(3), mean, std)
