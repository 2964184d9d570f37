from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from distail.data.dataset import LabelledImages, resized


@pytest.mark.parametrize("side", [None, 8])
def test_nothing_to_do(random_images: Callable[..., LabelledImages], side: int | None) -> None:
    data = random_images(3)
    assert resized(data, side) is data


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [3, 5, 13, 16])
def test_arrays_are_resized_as_files_are(
    random_images: Callable[..., LabelledImages], channels: int, side: int
) -> None:
    data = random_images(3, channels=channels)
    result = resized(data, side)
    assert result.images.shape == (3, channels, side, side)
    assert torch.equal(result.labels, data.labels)
    for image, small in zip(data.images.numpy(), result.images.numpy(), strict=True):
        for plane, small_plane in zip(image, small, strict=True):
            by_pillow = np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR))
            assert np.abs(by_pillow.astype(int) - small_plane).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(8, 12), (12, 8)])
def test_the_centre_is_cut(random_images: Callable[..., LabelledImages], height: int, width: int) -> None:
    data = random_images(2, height=height, width=width)
    expected = data.images[..., (height - 8) // 2 :, (width - 8) // 2 :][..., :8, :8]
    assert torch.equal(resized(data, 8).images, expected)
