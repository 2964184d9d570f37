"""Images in memory: what fits together, subsets, and resizing as files are resized."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from distail.data.dataset import LabeledImages, resized
from distail.errors import DataError


def test_subset_takes_rows_in_the_order_given() -> None:
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    part = LabeledImages(images, torch.tensor([5, 6, 7, 8])).subset(torch.tensor([2, 0]))
    assert part.labels.tolist() == [7, 5]
    assert torch.equal(part.images, images[[2, 0]])


def test_tensors_are_made_contiguous() -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    assert LabeledImages(images, torch.tensor([0, 1])).images.is_contiguous()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), r"float32 \(2, 3, 4, 4\).*uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\(2, 4, 4\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "labels.*float32.*int64"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "2 images.* 3 labels"),
    ],
)
def test_what_does_not_fit_is_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabeledImages(images, labels)


@pytest.mark.parametrize("side", [None, 8])
def test_nothing_to_do(random_images: Callable[..., LabeledImages], side: int | None) -> None:
    data = random_images(3)
    assert resized(data, side) is data


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [3, 5, 13, 16])
def test_arrays_are_resized_as_files_are(random_images: Callable[..., LabeledImages], channels: int, side: int) -> None:
    data = random_images(3, channels=channels)
    result = resized(data, side)
    assert result.images.shape == (3, channels, side, side)
    assert torch.equal(result.labels, data.labels)
    for image, small in zip(data.images.numpy(), result.images.numpy(), strict=True):
        for plane, small_plane in zip(image, small, strict=True):
            by_pillow = np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR))
            assert np.abs(by_pillow.astype(int) - small_plane).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(8, 12), (12, 8)])
def test_the_center_is_cut(random_images: Callable[..., LabeledImages], height: int, width: int) -> None:
    data = random_images(2, height=height, width=width)
    expected = data.images[..., (height - 8) // 2 :, (width - 8) // 2 :][..., :8, :8]
    assert torch.equal(resized(data, 8).images, expected)
