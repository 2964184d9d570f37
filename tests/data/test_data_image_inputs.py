"""Batches made several at once are the batches made one by one."""

from __future__ import annotations

import pytest
import torch

from distail.config.augment import AUGMENTATIONS
from distail.data.augment import draw_augmentation
from distail.data.dataset import LabeledImages
from distail.data.image_inputs import ImageInputs

SIZES = (6, 6, 6, 6, 3)
POLICIES = ["crop", "flip", "auto_augment", "cutout"]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("names", [[], ["crop"], POLICIES, [*AUGMENTATIONS]], ids=["none", "crop", "policy", "all"])
@pytest.mark.parametrize("at_once", [1, 7, 13, 100])
def test_several_batches_at_once_are_those_one_by_one(names: list[str], channels_last: bool, at_once: int) -> None:
    generator = torch.Generator().manual_seed(0)
    data = LabeledImages(
        torch.randint(0, 256, (27, 3, 16, 16), dtype=torch.uint8, generator=generator), torch.arange(27)
    )

    def batches(together: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        source = ImageInputs(
            data,
            6,
            mean=[0.5] * 3,
            std=[0.2] * 3,
            augment=names,
            device="cpu",
            channels_last=channels_last,
            at_once=together,
        )
        order = torch.randperm(27, generator=torch.Generator().manual_seed(1)).split(SIZES)
        draws = [draw_augmentation(source.augmentations, size, 0, 0, step) for step, size in enumerate(SIZES)]
        return list(source.batches(zip(order, draws, strict=True)))

    for (index, images), (same_index, same) in zip(batches(0), batches(at_once), strict=True):
        assert torch.equal(index, same_index)
        assert torch.equal(images, same)
        assert images.stride() == same.stride()
