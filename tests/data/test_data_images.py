from __future__ import annotations

import pytest
import torch

from distail.data.dataset import LabelledImages
from distail.errors import DataError


def test_subset_takes_rows_in_the_order_given() -> None:
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    part = LabelledImages(images, torch.tensor([5, 6, 7, 8])).subset(torch.tensor([2, 0]))
    assert part.labels.tolist() == [7, 5]
    assert torch.equal(part.images, images[[2, 0]])


def test_tensors_are_made_contiguous() -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    assert LabelledImages(images, torch.tensor([0, 1])).images.is_contiguous()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), r"float32 \(2, 3, 4, 4\); expected uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\(2, 4, 4\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "labels are torch.float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "2 images but 3 labels"),
    ],
)
def test_what_does_not_fit_is_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelledImages(images, labels)


def test_moving_to_the_same_device_copies_nothing() -> None:
    data = LabelledImages(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]))
    assert data.to("cpu").images.data_ptr() == data.images.data_ptr()
